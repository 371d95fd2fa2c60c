// Tokens on disk: a data set of any size is tokenised once and then read by position.
import { createHash } from 'node:crypto';
import { type FileHandle, open, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { findFiles } from '../text/records/find_files.ts';
import type { Tokenizer } from '../text/tokenizer.ts';
import type { Note } from './notes.ts';
import { type BuildOptions, buildStore } from './store_builder.ts';
import { FORMAT, fingerprintOf, readStore, type Stored, TOKENS } from './store_files.ts';
import { makeFolder } from './store_folder.ts';

export class TokenStore {
  readonly #path: string;
  readonly #tokens: FileHandle;
  /** Where each document begins; the last entry is the end of the last one. */
  readonly offsets: Float64Array;
  /** The first document of each record: a conversation may be several. */
  readonly records: Float64Array;
  /** SHA-256 of what is trained on: ids, marks, where documents and records begin. The same text under another path has the same. */
  readonly fingerprint: string;
  /** What a user should know about the files. */
  readonly notes: readonly Note[];

  private constructor(path: string, tokens: FileHandle, { offsets, records, info }: Stored) {
    this.#path = path;
    this.#tokens = tokens;
    this.offsets = offsets;
    this.records = records;
    this.fingerprint = fingerprintOf(info);
    this.notes = info.notes;
  }

  get numDocuments(): number {
    return this.offsets.length - 1;
  }
  get numTokens(): number {
    return this.offsets.at(-1)!;
  }

  /**
   * The tokens of these files, folders and patterns, from `cacheDir` where they have been stored before: same files by path, size and
   * times, same tokenizer, same options. A stored copy is checked by its hashes; if it is damaged, it is made again. Throws for an id
   * outside [0, V).
   */
  static async open(
    named: readonly string[],
    tokenizer: Tokenizer,
    { cacheDir, ...options }: BuildOptions & { cacheDir: string },
  ): Promise<TokenStore> {
    const files = await findFiles(named);
    const key = await keyOf([...files, ...tokenizer.files], options);
    const folder = join(cacheDir, key);
    let stored = await readStore(folder);
    if (!stored) {
      const build = async (temporary: string) => {
        await buildStore(temporary, files, tokenizer, options);
        const keyNow = await keyOf([...files, ...tokenizer.files], options);
        if (keyNow !== key) throw new Error(`${named.join(', ')}: changed while they were read`);
      };
      await makeFolder(folder, build, async () => (await readStore(folder)) !== null);
      stored = await readStore(folder);
    }
    if (!stored) throw new Error(`${folder}: was written, and reads otherwise: is the disk sound?`);
    const path = join(folder, TOKENS);
    return new TokenStore(path, await open(path), stored);
  }

  /** Tokens [begin, end) of the whole, marked as `encode.ts` says. */
  async read(begin: number, end: number): Promise<Int32Array> {
    const ids = new Int32Array(end - begin);
    const bytes = new Uint8Array(ids.buffer);
    let done = 0;
    while (done < bytes.length) {
      const { bytesRead } = await this.#tokens.read(bytes, done, bytes.length - done, begin * 4 + done);
      if (bytesRead === 0) throw new Error(`${this.#path}: ends at token ${begin + done / 4}, not ${end}`);
      done += bytesRead;
    }
    return ids;
  }

  async close(): Promise<void> {
    await this.#tokens.close();
  }
}

/** The time of a file's last change (ctime) cannot be set, as that of its content can. */
async function keyOf(paths: readonly string[], options: object): Promise<string> {
  const facts = [];
  for (const path of paths) {
    const { size, mtimeMs, ctimeMs } = await stat(path).catch((error: Error) => {
      throw new Error(`${path}: cannot be read: ${error.message}`, { cause: error });
    });
    facts.push([path, size, mtimeMs, ctimeMs]);
  }
  const named = Object.entries(options).sort(([a], [b]) => (a < b ? -1 : 1));
  return createHash('sha256')
    .update(JSON.stringify([FORMAT, facts, named]))
    .digest('hex')
    .slice(0, 16);
}
