// The files of a token store, written from the first token to the last.
import { join } from 'node:path';
import type { MarkedIds } from '../text/encode.ts';
import type { Note } from './notes.ts';
import { HashedFile, INFO, OFFSETS, RECORDS, type StoreInfo, TOKENS } from './store_files.ts';

export class StoreWriter {
  readonly #folder: string;
  readonly #tokens: HashedFile;
  readonly #offsets: HashedFile;
  readonly #records: HashedFile;
  #numTokens = 0;
  #numDocuments = 0;
  #numRecords = 0;
  /** Of the document at hand. */
  #begin = 0;
  #hasTarget = false;
  readonly #untrained = { documents: 0, tokens: 0, first: '' };

  private constructor(folder: string, [tokens, offsets, records]: HashedFile[]) {
    this.#folder = folder;
    this.#tokens = tokens!;
    this.#offsets = offsets!;
    this.#records = records!;
  }

  static async create(folder: string): Promise<StoreWriter> {
    const files: HashedFile[] = [];
    try {
      for (const name of [TOKENS, OFFSETS, RECORDS]) files.push(await HashedFile.create(join(folder, name)));
      await files[1]!.append(Float64Array.of(0));
      return new StoreWriter(folder, files);
    } catch (error) {
      for (const file of files) await file.close();
      throw error;
    }
  }

  get numDocuments(): number {
    return this.#numDocuments;
  }

  /** Documents up to the next call belong to this record. */
  async beginRecord(): Promise<void> {
    this.#numRecords += 1;
    await this.#records.append(Float64Array.of(this.#numDocuments));
  }

  async append(ids: MarkedIds): Promise<void> {
    // A document's first token has no context.
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
      numRecords: this.#numRecords,
      tokens: await this.#tokens.finish(),
      offsets: await this.#offsets.finish(),
      records: await this.#records.finish(),
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
    await this.#records.close();
  }
}
