// Tokens on disk: a data set is tokenised once, and read from there by position, however large it is.
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { type FileHandle, mkdir, open, readFile, rename, rm, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { type EncodeOptions, idOf, RecordEncoder } from '../text/encode.ts';
import { readRecords } from '../text/records/read_records.ts';
import type { DataRecord } from '../text/records/record.ts';
import type { Tokenizer } from '../text/tokenizer.ts';
import { type Note, Notes } from './notes.ts';

const TOKENS = 'tokens.bin';
const OFFSETS = 'documents.bin';
const NOTES = 'notes.json';
/** Changes whenever the same files would be stored differently. */
const FORMAT = 2;
/** Milliseconds of work after which other events get their turn. */
const TURN = 10;

export class TokenStore {
  readonly #tokens: FileHandle;
  /** Where each document begins, and at the end where the last one ends. */
  readonly offsets: Float64Array;
  /** What a user should know of the files. */
  readonly notes: readonly Note[];

  private constructor(tokens: FileHandle, offsets: Float64Array, notes: readonly Note[]) {
    this.#tokens = tokens;
    this.offsets = offsets;
    this.notes = notes;
  }

  get numDocuments(): number {
    return this.offsets.length - 1;
  }
  get numTokens(): number {
    return this.offsets.at(-1)!;
  }

  /**
   * The tokens of these files, from `cacheDir` where they have been stored before: same files by path, size and time, same tokenizer, same
   * options. Throws for an id outside [0, V).
   */
  static async open(
    files: readonly string[],
    tokenizer: Tokenizer,
    options: EncodeOptions & { cacheDir: string; V: number },
  ): Promise<TokenStore> {
    const { cacheDir, ...encoding } = options;
    const folder = join(cacheDir, await keyOf(files, tokenizer, encoding));
    if (!(await isFolder(folder))) {
      const temporary = `${folder}.${process.pid}.tmp`;
      await rm(temporary, { recursive: true, force: true });
      await mkdir(temporary, { recursive: true });
      try {
        await build(temporary, files, tokenizer, encoding);
        await rename(temporary, folder);
      } catch (error) {
        await rm(temporary, { recursive: true, force: true });
        throw error;
      }
    }
    const offsets = await readFile(join(folder, OFFSETS));
    return new TokenStore(
      await open(join(folder, TOKENS)),
      new Float64Array(offsets.buffer, offsets.byteOffset, offsets.byteLength / 8),
      JSON.parse(await readFile(join(folder, NOTES), 'utf8')) as Note[],
    );
  }

  /** Tokens [begin, end) of the whole, marked as `encode.ts` says. */
  async read(begin: number, end: number): Promise<Int32Array> {
    const ids = new Int32Array(end - begin);
    const bytes = new Uint8Array(ids.buffer);
    let done = 0;
    while (done < bytes.length) {
      const { bytesRead } = await this.#tokens.read(bytes, done, bytes.length - done, begin * 4 + done);
      if (bytesRead === 0) throw new Error(`token store: ends at token ${begin + done / 4}, not ${end}`);
      done += bytesRead;
    }
    return ids;
  }

  async close(): Promise<void> {
    await this.#tokens.close();
  }
}

async function isFolder(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory();
  } catch {
    return false;
  }
}

async function keyOf(files: readonly string[], tokenizer: Tokenizer, options: object): Promise<string> {
  const facts = [];
  for (const path of [...files, ...tokenizer.files]) {
    const { size, mtimeMs } = await stat(path).catch((error: Error) => {
      throw new Error(`${path}: cannot be read: ${error.message}`, { cause: error });
    });
    facts.push([path, size, mtimeMs]);
  }
  return createHash('sha256')
    .update(JSON.stringify([FORMAT, facts, options]))
    .digest('hex')
    .slice(0, 16);
}

async function build(
  folder: string,
  files: readonly string[],
  tokenizer: Tokenizer,
  options: EncodeOptions & { V: number },
): Promise<void> {
  const tokens = createWriteStream(join(folder, TOKENS));
  const encoder = new RecordEncoder(tokenizer, options);
  const notes = new Notes();
  const offsets = [0];
  let length = 0;
  let turn = performance.now();
  const append = async (ids: Int32Array, place: string) => {
    const wrong = ids.findIndex((marked) => idOf(marked) >= options.V);
    if (wrong >= 0) {
      throw new RangeError(`${place}: token ${wrong} has id ${idOf(ids[wrong]!)}, outside [0, ${options.V})`);
    }
    length += ids.length;
    if (!tokens.write(new Uint8Array(ids.buffer, ids.byteOffset, ids.byteLength))) await once(tokens, 'drain');
  };
  try {
    let isBegin = true;
    let rest = ''; // of a text that comes in parts, what may belong to a token with the next part
    for await (const { record, isEnd, place } of readRecords(files)) {
      let part = record;
      if ('text' in record) {
        const text = rest + record.text;
        const end = isEnd ? text.length : await tokenizer.cutBefore(text);
        rest = text.slice(end);
        part = { text: text.slice(0, end) };
        if (!isEnd && end === 0) continue;
      }
      for (const ids of await encoded(part, isBegin, isEnd, place)) {
        await append(ids, place);
        if (isEnd) offsets.push(length);
      }
      isBegin = isEnd;
      if (performance.now() - turn > TURN) {
        await setImmediate();
        turn = performance.now();
      }
    }
  } finally {
    tokens.end();
    await once(tokens, 'close');
  }
  if (offsets.length === 1) throw new Error(`${files.join(', ')}: no documents`);
  await writeFile(join(folder, NOTES), JSON.stringify(notes.list()));
  await writeFile(join(folder, OFFSETS), new Uint8Array(Float64Array.from(offsets).buffer));

  async function encoded(record: DataRecord, isBegin: boolean, isEnd: boolean, place: string) {
    try {
      return await encoder.encode(record, (what) => notes.add(what, place), { isBegin, isEnd });
    } catch (error) {
      throw new Error(`${place}: ${(error as Error).message}`, { cause: error });
    }
  }
}
