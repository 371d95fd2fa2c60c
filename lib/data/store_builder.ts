// From records of files to the folder of a token store.
import { realpath } from 'node:fs/promises';
import { setImmediate } from 'node:timers/promises';
import { type EncodeOptions, idOf, type MarkedIds, RecordEncoder } from '../text/encode.ts';
import { readRecords } from '../text/records/read_records.ts';
import type { DataRecord } from '../text/records/record.ts';
import type { Tokenizer } from '../text/tokenizer.ts';
import { Notes } from './notes.ts';
import { StoreWriter } from './store_writer.ts';

/** Milliseconds of work between two yields to the event loop. */
const TURN = 10;

export interface BuildOptions extends EncodeOptions {
  /** Ids are below. */
  V: number;
}

/** Tokenises files into an empty folder, and writes all of it to the disk. Throws for an id outside [0, V). */
export async function buildStore(
  folder: string,
  files: readonly string[],
  tokenizer: Tokenizer,
  options: BuildOptions,
): Promise<void> {
  const encoder = new RecordEncoder(tokenizer, options);
  const notes = new Notes();
  for (const path of await namedAgain(files))
    notes.add('a file that is named more than once, and read each time', path);
  const writer = await StoreWriter.create(folder);
  try {
    let isBegin = true;
    let rest = ''; // end of a text part that may share a token with the next part
    let turn = performance.now();
    const hasChatTemplate = tokenizer.chatTemplate !== null;
    for await (const { record, isEnd, place, notices } of readRecords(files, { hasChatTemplate })) {
      for (const what of notices ?? []) notes.add(what, place);
      let part = record;
      if ('text' in record) {
        const text = rest + record.text;
        const end = isEnd ? text.length : await tokenizer.cutBefore(text);
        rest = text.slice(end);
        part = { text: text.slice(0, end) };
        if (!isEnd && end === 0) continue;
      }
      if (isBegin) await writer.beginRecord();
      for (const ids of await encoded(part, place, { isBegin, isEnd })) {
        await writer.append(ids);
        if (isEnd) await writer.endDocument(place);
      }
      isBegin = isEnd;
      if (performance.now() - turn > TURN) {
        await setImmediate();
        turn = performance.now();
      }
    }
    if (writer.numDocuments === 0) throw new Error(`${shortList(files)}: no documents`);
    await writer.finish(notes.list());
  } finally {
    await writer.close();
  }

  async function encoded(record: DataRecord, place: string, ends: { isBegin: boolean; isEnd: boolean }) {
    try {
      const documents = await encoder.encode(record, (what) => notes.add(what, place), ends);
      for (const ids of documents) checkIds(ids, options.V);
      return documents;
    } catch (error) {
      throw new Error(`${place}: ${(error as Error).message}`, { cause: error });
    }
  }
}

/** The files that are the same as an earlier one, by whatever path. */
async function namedAgain(files: readonly string[]): Promise<string[]> {
  const seen = new Set<string>();
  const again: string[] = [];
  for (const path of files) {
    const real = await realpath(path);
    if (seen.has(real)) again.push(path);
    seen.add(real);
  }
  return again;
}

function shortList(files: readonly string[]): string {
  const more = files.length > 3 ? [`${files.length - 3} more`] : [];
  return [...files.slice(0, 3), ...more].join(', ');
}

function checkIds(ids: MarkedIds, V: number): void {
  const wrong = ids.findIndex((marked) => idOf(marked) >= V);
  if (wrong >= 0) throw new RangeError(`token ${wrong} has id ${idOf(ids[wrong]!)}, outside [0, ${V})`);
}
