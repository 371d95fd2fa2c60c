// Records of files to the folder of a token store.
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { type EncodeOptions, idOf, type MarkedIds, RecordEncoder } from '../text/encode.ts';
import { readRecords } from '../text/records/read_records.ts';
import type { DataRecord } from '../text/records/record.ts';
import type { Tokenizer } from '../text/tokenizer.ts';
import { type Note, Notes } from './notes.ts';
import { HashedFile, INFO, OFFSETS, type StoreInfo, TOKENS } from './store_files.ts';

/** Milliseconds of work after which other events get their turn. */
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
  const writer = await StoreWriter.create(folder);
  try {
    let isBegin = true;
    let rest = ''; // of a text that comes in parts, what may belong to a token with the next part
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

function shortList(files: readonly string[]): string {
  const more = files.length > 3 ? [`${files.length - 3} more`] : [];
  return [...files.slice(0, 3), ...more].join(', ');
}

function checkIds(ids: MarkedIds, V: number): void {
  const wrong = ids.findIndex((marked) => idOf(marked) >= V);
  if (wrong >= 0) throw new RangeError(`token ${wrong} has id ${idOf(ids[wrong]!)}, outside [0, ${V})`);
}

class StoreWriter {
  readonly #folder: string;
  readonly #tokens: HashedFile;
  readonly #offsets: HashedFile;
  #numTokens = 0;
  #numDocuments = 0;
  /** Of the document at hand. */
  #begin = 0;
  #hasTarget = false;
  readonly #untrained = { documents: 0, tokens: 0, first: '' };

  private constructor(folder: string, tokens: HashedFile, offsets: HashedFile) {
    this.#folder = folder;
    this.#tokens = tokens;
    this.#offsets = offsets;
  }

  static async create(folder: string): Promise<StoreWriter> {
    const tokens = await HashedFile.create(join(folder, TOKENS));
    try {
      const offsets = await HashedFile.create(join(folder, OFFSETS));
      await offsets.append(Float64Array.of(0));
      return new StoreWriter(folder, tokens, offsets);
    } catch (error) {
      await tokens.close();
      throw error;
    }
  }

  get numDocuments(): number {
    return this.#numDocuments;
  }

  async append(ids: MarkedIds): Promise<void> {
    // Nothing is before a document's first token.
    this.#hasTarget ||= ids.some((marked, i) => marked >= 0 && this.#numTokens + i > this.#begin);
    this.#numTokens += ids.length;
    await this.#tokens.append(ids);
  }

  async endDocument(place: string): Promise<void> {
    if (!this.#hasTarget) {
      if (this.#untrained.documents === 0) this.#untrained.first = place;
      this.#untrained.documents += 1;
      this.#untrained.tokens += this.#numTokens - this.#begin;
    }
    this.#begin = this.#numTokens;
    this.#hasTarget = false;
    this.#numDocuments += 1;
    await this.#offsets.append(Float64Array.of(this.#numTokens));
  }

  async finish(notes: Note[]): Promise<void> {
    const info: StoreInfo = {
      numTokens: this.#numTokens,
      numDocuments: this.#numDocuments,
      tokens: await this.#tokens.finish(),
      offsets: await this.#offsets.finish(),
      notes: [...this.#ownNotes(), ...notes],
    };
    const file = await HashedFile.create(join(this.#folder, INFO));
    try {
      await file.append(Buffer.from(JSON.stringify(info)));
      await file.finish();
    } finally {
      await file.close();
    }
  }

  #ownNotes(): Note[] {
    const { documents: count, tokens, first } = this.#untrained;
    const what = `a document with nothing to train on, which is left out (in all ${tokens} of ${this.#numTokens} tokens)`;
    return count > 0 ? [{ what, count, first }] : [];
  }

  async close(): Promise<void> {
    await this.#tokens.close();
    await this.#offsets.close();
  }
}
