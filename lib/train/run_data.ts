// What a run trains and validates on.
import { realpath } from 'node:fs/promises';
import { join } from 'node:path';
import { type Dataset, type Extremes, makeDataset, type StoredDataset, type TokenBatch } from '../data/dataset.ts';
import { type Note, Notes } from '../data/notes.ts';
import { split, splitDocuments } from '../data/split.ts';
import { TokenStore } from '../data/token_store.ts';
import { findFiles } from '../text/records/find_files.ts';
import type { Tokenizer } from '../text/tokenizer.ts';
import type { RunConfig } from './config.ts';

export interface RunData {
  training: Dataset;
  validation: Dataset | null;
  /** Of the files trained on. */
  numTokens: number;
  /** Of all that is trained on, by content; see `TokenStore`. */
  fingerprint: string;
  /** Of the validation files; null: there are none. */
  validationFingerprint: string | null;
  /** What a user should know about the files. */
  notes: readonly Note[];
  close(): Promise<void>;
}

/** Tokenises the run's files, or finds them tokenised in the run's folder. */
export async function openRunData(config: RunConfig, tokenizer: Tokenizer, V: number): Promise<RunData> {
  const { data, sequenceLength: T, seed, outDir } = config;
  const { trainOnPrompts, trainOnLastAnswer, templateVariables, templateDate } = data;
  const encoding = { V, trainOnPrompts, trainOnLastAnswer };
  const options = { cacheDir: join(outDir, 'data'), ...encoding, templateVariables, templateDate };
  const stores: TokenStore[] = [];
  const close = async () => {
    for (const store of stores) await store.close();
  };
  try {
    const store = await TokenStore.open(data.files, tokenizer, options);
    stores.push(store);
    const isPacked = data.packing === 'auto' ? store.numDocuments > 1 : data.packing;
    const shape = { T, seed, isPacked };
    const { numTokens, notes, fingerprint } = store;
    const facts = { numTokens, notes, fingerprint, validationFingerprint: null, close };
    if (!data.validation) return { training: await makeDataset(store, shape), validation: null, ...facts };
    if ('files' in data.validation) {
      const held = await TokenStore.open(data.validation.files, tokenizer, options);
      stores.push(held);
      return {
        training: await makeDataset(store, shape),
        validation: await makeDataset(held, shape),
        ...facts,
        validationFingerprint: held.fingerprint,
        notes: [...notes, ...held.notes, ...(await sharedFiles(data.files, data.validation.files))],
      };
    }
    const { fraction } = data.validation;
    if (store.numDocuments > 1) {
      if (store.records.length < 2) {
        throw new Error('data.validation: one conversation cannot be split; give validation files');
      }
      const { training, validation } = splitDocuments(store, fraction, seed);
      return {
        training: await makeDataset(store, { ...shape, documents: training }),
        validation: await makeDataset(store, { ...shape, documents: validation }),
        ...facts,
      };
    }
    const whole = await makeDataset(store, shape);
    if (whole.length < 2) throw new Error('data.validation: one sequence cannot be split; give validation files');
    const { training, validation } = split(whole.length, fraction, seed);
    return { training: new Subset(whole, training), validation: new Subset(whole, validation), ...facts };
  } catch (error) {
    await close();
    throw error;
  }
}

/** Notes on files that are both trained and validated on. */
async function sharedFiles(trained: readonly string[], validated: readonly string[]): Promise<Note[]> {
  const notes = new Notes();
  const real = new Set<string>();
  for (const path of await findFiles(trained)) real.add(await realpath(path));
  for (const path of await findFiles(validated)) {
    if (real.has(await realpath(path))) notes.add('a file that is validated on and trained on', path);
  }
  return notes.list();
}

/** Some sequences of a dataset. */
class Subset implements Dataset {
  readonly #whole: StoredDataset;
  readonly #indices: readonly number[];

  constructor(whole: StoredDataset, indices: readonly number[]) {
    this.#whole = whole;
    this.#indices = indices;
  }
  get length(): number {
    return this.#indices.length;
  }
  get extremes(): Extremes {
    return this.#whole.extremesOf(this.#indices);
  }
  get T(): number {
    return this.#whole.longest(this.#indices);
  }
  get isPacked(): boolean {
    return this.#whole.isPacked;
  }
  batch(indices: readonly number[]): Promise<TokenBatch> {
    return this.#whole.batch(indices.map((index) => this.#indices[index]!));
  }
}
