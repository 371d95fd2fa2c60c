// A token store on disk: a folder of tokens, of where documents and records begin, and of what these files must hash to.
import { createHash, type Hash } from 'node:crypto';
import { type FileHandle, open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { writeFully } from '../io/whole_file.ts';
import type { Note } from './notes.ts';

export const TOKENS = 'tokens.bin'; // int32, marked as lib/text/encode.ts says
export const OFFSETS = 'documents.bin'; // float64: where each document begins, and where the last one ends
export const RECORDS = 'records.bin'; // float64: the first document of each record that has one
export const INFO = 'store.json'; // StoreInfo
/** Changes whenever the same files would be stored differently. */
export const FORMAT = 4;
/** Bytes written or hashed at once. */
const PIECE = 2 ** 20;

export interface StoreInfo {
  numTokens: number;
  numDocuments: number;
  numRecords: number;
  /** SHA-256 of the files. */
  tokens: string;
  offsets: string;
  records: string;
  notes: Note[];
}

export interface Stored {
  info: StoreInfo;
  offsets: Float64Array;
  records: Float64Array;
}

/**
 * Depends only on what is trained on, not on paths, times and options. If each record is one document, the documents determine it.
 */
export function fingerprintOf({ tokens, offsets, records, numDocuments, numRecords }: StoreInfo): string {
  const ofRecords = numRecords === numDocuments ? '' : ` ${records}`;
  return createHash('sha256').update(`${tokens} ${offsets}${ofRecords}`).digest('hex');
}

/** An undamaged store; null: there is none, or it is damaged (power loss, disk fault). Reads all of it once. */
export async function readStore(folder: string): Promise<Stored | null> {
  let info: StoreInfo | null;
  try {
    info = JSON.parse(await readFile(join(folder, INFO), 'utf8')) as StoreInfo | null;
  } catch (error) {
    if (error instanceof SyntaxError || isMissing(error)) return null;
    throw error;
  }
  if (info === null) return null;
  const [tokens, offsets, records] = [join(folder, TOKENS), join(folder, OFFSETS), join(folder, RECORDS)];
  const isWhole =
    (await hashOf(tokens, info.numTokens * 4)) === info.tokens &&
    (await hashOf(offsets, (info.numDocuments + 1) * 8)) === info.offsets &&
    (await hashOf(records, info.numRecords * 8)) === info.records;
  return isWhole ? { info, offsets: await numbersOf(offsets), records: await numbersOf(records) } : null;
}

async function numbersOf(path: string): Promise<Float64Array> {
  const { buffer, byteOffset, byteLength } = await readFile(path);
  return new Float64Array(buffer.slice(byteOffset, byteOffset + byteLength));
}

const isMissing = (error: unknown) => (error as NodeJS.ErrnoException).code === 'ENOENT';

/** Of a file of `size` bytes; null: it has another size, or is not there. */
async function hashOf(path: string, size: number): Promise<string | null> {
  let handle: FileHandle;
  try {
    handle = await open(path);
  } catch (error) {
    if (isMissing(error)) return null;
    throw error;
  }
  try {
    if ((await handle.stat()).size !== size) return null;
    const hash = createHash('sha256');
    const piece = Buffer.alloc(PIECE);
    for (let done = 0; done < size; ) {
      const { bytesRead } = await handle.read(piece, 0, PIECE, done);
      if (bytesRead === 0) return null;
      hash.update(piece.subarray(0, bytesRead));
      done += bytesRead;
    }
    return hash.digest('hex');
  } finally {
    await handle.close();
  }
}

/** A new file that is written sequentially and hashed on the way. */
export class HashedFile {
  readonly #path: string;
  readonly #handle: FileHandle;
  readonly #hash: Hash = createHash('sha256');
  readonly #piece = Buffer.alloc(PIECE);
  #length = 0; // of what stands in #piece

  private constructor(path: string, handle: FileHandle) {
    this.#path = path;
    this.#handle = handle;
  }

  static async create(path: string): Promise<HashedFile> {
    return new HashedFile(path, await open(path, 'wx'));
  }

  async append({ buffer, byteOffset, byteLength }: NodeJS.TypedArray): Promise<void> {
    const bytes = new Uint8Array(buffer, byteOffset, byteLength);
    for (let done = 0; done < bytes.length; ) {
      const part = bytes.subarray(done, done + PIECE - this.#length);
      this.#piece.set(part, this.#length);
      this.#length += part.length;
      done += part.length;
      if (this.#length === PIECE) await this.#flush();
    }
  }

  async #flush(): Promise<void> {
    const bytes = this.#piece.subarray(0, this.#length);
    this.#hash.update(bytes);
    await this.#named(writeFully(this.#handle, bytes));
    this.#length = 0;
  }

  /** Writes the rest, syncs the file, and returns the hash of all. */
  async finish(): Promise<string> {
    await this.#flush();
    await this.#named(this.#handle.sync());
    return this.#hash.digest('hex');
  }

  close(): Promise<void> {
    return this.#handle.close();
  }

  /** The system's error of a write does not name the file. */
  async #named<T>(work: Promise<T>): Promise<T> {
    try {
      return await work;
    } catch (error) {
      throw new Error(`${this.#path}: cannot be written: ${(error as Error).message}`, { cause: error });
    }
  }
}
