// From text files to sequences of T tokens: the one place where inputs and targets are shifted and ids are checked.
import { readFile } from 'node:fs/promises';
import { concatenate, type Tokenizer } from '../io/tokenizer.ts';

/** Target of a row that has no part in the loss. */
export const IGNORED = -100;

/** B sequences of T, flat, on the host. */
export interface TokenBatch {
  /** (B·T,). */
  inputs: Int32Array;
  /** (B·T,): what follows each input; IGNORED in padding. */
  targets: Int32Array;
  B: number;
  T: number;
  /** Targets that are not ignored. */
  numTargets: number;
}

/** Reads text files into one stream of ids, each file ended by the end-of-text id where the tokenizer has one. */
export async function readTokens(files: readonly string[], tokenizer: Tokenizer): Promise<Int32Array> {
  const parts: Int32Array[] = [];
  for (const path of files) {
    let bytes: Uint8Array;
    try {
      bytes = await readFile(path);
    } catch (error) {
      throw new Error(`${path}: cannot be read: ${(error as Error).message}`, { cause: error });
    }
    let text: string;
    try {
      text = new TextDecoder('utf-8', { fatal: true }).decode(bytes); // takes a byte order mark away
    } catch (error) {
      throw new Error(`${path}: is not UTF-8 text`, { cause: error });
    }
    if (text === '') throw new Error(`${path}: is empty`);
    parts.push(await tokenizer.encode(text));
    if (tokenizer.endOfText !== null) parts.push(Int32Array.of(tokenizer.endOfText));
  }
  return concatenate(parts);
}

/**
 * Windows of T over a stream of tokens. Neighbours overlap by one token, so that every token but the first is a target exactly once
 * an epoch; the last window is padded, and its padding ignored.
 */
export class Sequences {
  readonly #tokens: Int32Array;
  readonly T: number;
  /** Windows in the stream. */
  readonly length: number;

  /** @param V vocabulary size: an id outside [0, V) is an error that names its place */
  constructor(tokens: Int32Array, T: number, V: number) {
    if (!Number.isSafeInteger(T) || T < 1) throw new RangeError(`Sequences: T must be a positive integer, got ${T}`);
    if (tokens.length < 2) throw new RangeError(`Sequences: needs at least 2 tokens, got ${tokens.length}`);
    const wrong = tokens.findIndex((id) => id < 0 || id >= V);
    if (wrong >= 0) throw new RangeError(`Sequences: token ${wrong} has id ${tokens[wrong]}, outside [0, ${V})`);
    this.#tokens = tokens;
    this.T = T;
    this.length = Math.ceil((tokens.length - 1) / T);
  }

  /** The windows with these numbers as one batch. */
  batch(windows: readonly number[]): TokenBatch {
    const { T } = this;
    const inputs = new Int32Array(windows.length * T);
    const targets = new Int32Array(windows.length * T).fill(IGNORED);
    let numTargets = 0;
    windows.forEach((window, b) => {
      if (!(Number.isInteger(window) && window >= 0 && window < this.length))
        throw new RangeError(`Sequences: window ${window} is not in [0, ${this.length})`);
      const begin = window * T;
      const count = Math.min(T, this.#tokens.length - 1 - begin);
      inputs.set(this.#tokens.subarray(begin, begin + count), b * T);
      targets.set(this.#tokens.subarray(begin + 1, begin + 1 + count), b * T);
      numTargets += count;
    });
    return { inputs, targets, B: windows.length, T, numTargets };
  }

  /** The order of an epoch's windows: the same for the same seed and epoch. */
  order(seed: number, epoch: number): Int32Array {
    const order = Int32Array.from({ length: this.length }, (_, i) => i);
    const random = generator(seed, epoch);
    for (let i = order.length - 1; i > 0; i--) {
      const j = Math.floor(random() * (i + 1));
      [order[i], order[j]] = [order[j]!, order[i]!];
    }
    return order;
  }
}

/** Numbers in [0, 1) by seed and stream (splitmix32). */
function generator(seed: number, stream: number): () => number {
  let state = Math.imul(seed ^ 0x5bf03635, 0x9e3779b1) ^ Math.imul(stream + 1, 0x85ebca6b);
  return () => {
    state = (state + 0x9e3779b9) | 0;
    let word = state ^ (state >>> 16);
    word = Math.imul(word, 0x21f0aaad);
    word = Math.imul(word ^ (word >>> 15), 0x735a2d97);
    return ((word ^ (word >>> 15)) >>> 0) / 2 ** 32;
  };
}
