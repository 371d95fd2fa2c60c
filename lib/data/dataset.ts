// Documents as sequences of T tokens: the one place where inputs and targets are shifted.
import { IGNORE_INDEX } from '../ops/loss_options.ts';
import { roundUp } from '../runtime/shape.ts';
import { idOf } from '../text/encode.ts';
import { formatNote } from './notes.ts';
import { shuffled } from './shuffle.ts';
import type { TokenStore } from './token_store.ts';

/** B sequences of one length, flat, on the host. */
export interface TokenBatch {
  /** (B·T,). */
  inputs: Int32Array;
  /** (B·T,): what follows each input in its document; IGNORE_INDEX in prompts and padding. */
  targets: Int32Array;
  /** (B·T,): the row where each row's document begins; null: each sequence is one document. */
  documentStart: Int32Array | null;
  B: number;
  /** Rows of each sequence: what its longest one needs, as `paddedLength` says. */
  T: number;
  /** Rows of the longest sequence without padding. */
  length: number;
  /** Targets that are not ignored. */
  numTargets: number;
}

/** Rows of the shortest and the longest of some sequences, without padding. */
export interface Extremes {
  shortest: number;
  longest: number;
}

export interface Dataset {
  /** Sequences. */
  readonly length: number;
  readonly extremes: Extremes;
  /** The largest T of its batches. */
  readonly T: number;
  /** Whether batches have documentStart. */
  readonly isPacked: boolean;
  /** The sequences with these numbers. */
  batch(indices: readonly number[]): Promise<TokenBatch>;
}

/**
 * Rows of a batch whose longest sequence has `length` tokens. Few lengths, since products are tuned for each number of rows; little
 * padding, since attention over it costs as much as over text. Multiples of 64 up to 512 rows, above that 16 lengths per octave, all
 * multiples of 128: at most 1/8 of 512 rows and 1/16 of more is padding.
 * @param T the upper bound
 */
export function paddedLength(length: number, T: number): number {
  const step = length <= 512 ? 64 : Math.max(128, 2 ** (Math.floor(Math.log2(length)) - 4));
  return Math.min(T, roundUp(length, step));
}

/** A stretch of one document: `length` inputs, and as many targets one token further on. */
export interface Window {
  /** Token of the store where it begins. */
  begin: number;
  length: number;
}

/**
 * Cuts documents into windows of at most T. Neighbours overlap by one token, so that every token but a document's first is a target
 * exactly once.
 * @param documents their numbers
 */
export function windowsOf({ offsets }: TokenStore, documents: Iterable<number>, T: number): Window[] {
  const windows: Window[] = [];
  for (const document of documents) {
    const end = offsets[document + 1]! - 1;
    for (let begin = offsets[document]!; begin < end; begin += T) {
      windows.push({ begin, length: Math.min(T, end - begin) });
    }
  }
  return windows;
}

/** Windows in a buffer that is packed at once: enough to fill sequences well, few enough to search. */
const PACKING_BUFFER = 8192;

/**
 * Packs windows into sequences of at most T by best fit, the longest first, within shuffled buffers: what shares a sequence depends on the
 * seed alone.
 */
export function pack(windows: readonly Window[], T: number, seed: number): Window[][] {
  const order = shuffled(windows.length, seed, -2);
  const sequences: Window[][] = [];
  for (let begin = 0; begin < order.length; begin += PACKING_BUFFER) {
    const buffer = Array.from(order.subarray(begin, begin + PACKING_BUFFER), (i) => windows[i]!);
    buffer.sort((a, b) => b.length - a.length); // equal ones stay shuffled
    const byRoom = new Map<number, Window[][]>(); // sequences of this buffer that have so much room
    const rooms: number[] = []; // its keys, ascending
    for (const window of buffer) {
      const at = firstAtLeast(rooms, window.length);
      const room = rooms[at] ?? T;
      let sequence: Window[] = [];
      if (at === rooms.length) {
        sequences.push(sequence);
      } else {
        const fitting = byRoom.get(room)!;
        sequence = fitting.pop()!;
        if (fitting.length === 0) {
          byRoom.delete(room);
          rooms.splice(at, 1);
        }
      }
      sequence.push(window);
      const left = room - window.length;
      if (left === 0) continue;
      const others = byRoom.get(left);
      if (others) others.push(sequence);
      else {
        byRoom.set(left, [sequence]);
        rooms.splice(firstAtLeast(rooms, left), 0, left);
      }
    }
  }
  return sequences;
}

/** The index of the first of these ascending numbers that is at least `value`. */
function firstAtLeast(ascending: readonly number[], value: number): number {
  let [begin, end] = [0, ascending.length];
  while (begin < end) {
    const middle = (begin + end) >>> 1;
    if (ascending[middle]! < value) begin = middle + 1;
    else end = middle;
  }
  return begin;
}

/** Sequences of windows, read from a store on demand. */
export class StoredDataset implements Dataset {
  readonly #store: TokenStore;
  readonly #sequences: readonly (readonly Window[])[];
  readonly #mostRows: number;
  readonly isPacked: boolean;

  /**
   * @param T rows of a sequence at most
   * @param isPacked whether documentStart separates several windows of a sequence
   */
  constructor(store: TokenStore, sequences: readonly (readonly Window[])[], T: number, isPacked: boolean) {
    this.#store = store;
    this.#sequences = sequences;
    this.#mostRows = T;
    this.isPacked = isPacked;
  }

  get T(): number {
    return this.longest(this.#sequences.keys());
  }

  get length(): number {
    return this.#sequences.length;
  }

  get extremes(): Extremes {
    return this.extremesOf(this.#sequences.keys());
  }

  /** Of some sequences. */
  extremesOf(indices: Iterable<number>): Extremes {
    let [shortest, longest] = [Number.POSITIVE_INFINITY, 0];
    for (const index of indices) {
      const rows = rowsOf(this.#sequence(index));
      shortest = Math.min(shortest, rows);
      longest = Math.max(longest, rows);
    }
    return { shortest, longest };
  }

  /** T of a batch of these sequences. */
  longest(indices: Iterable<number>): number {
    return paddedLength(this.extremesOf(indices).longest, this.#mostRows);
  }

  async batch(indices: readonly number[]): Promise<TokenBatch> {
    const B = indices.length;
    const length = indices.reduce((longest, index) => Math.max(longest, rowsOf(this.#sequence(index))), 0);
    const T = paddedLength(length, this.#mostRows);
    const inputs = new Int32Array(B * T);
    const targets = new Int32Array(B * T).fill(IGNORE_INDEX);
    const documentStart = this.isPacked ? new Int32Array(B * T) : null;
    let numTargets = 0;
    for (const [b, index] of indices.entries()) {
      let row = b * T;
      for (const { begin, length } of this.#sequence(index)) {
        const tokens = await this.#store.read(begin, begin + length + 1);
        for (let i = 0; i < length; i++) {
          inputs[row + i] = idOf(tokens[i]!);
          const target = tokens[i + 1]!;
          if (target < 0) continue;
          targets[row + i] = target;
          numTargets += 1;
        }
        documentStart?.fill(row, row, row + length);
        row += length;
      }
      documentStart?.fill(row, row, (b + 1) * T); // padding is a document of its own
    }
    return { inputs, targets, documentStart, B, T, length, numTargets };
  }

  #sequence(index: number): readonly Window[] {
    const windows = this.#sequences[index];
    if (!windows) throw new RangeError(`Dataset: sequence ${index} is not in [0, ${this.length})`);
    return windows;
  }
}

const rowsOf = (windows: readonly Window[]) => windows.reduce((sum, { length }) => sum + length, 0);

export interface DatasetOptions {
  T: number;
  seed: number;
  /** Several documents in one sequence. */
  isPacked: boolean;
  /** The documents to take. @default all */
  documents?: readonly number[];
}

/** Sequences over a store. Windows without a target are left out. */
export async function makeDataset(store: TokenStore, options: DatasetOptions): Promise<StoredDataset> {
  const { T, seed, isPacked, documents = Array.from({ length: store.numDocuments }, (_, i) => i) } = options;
  const windows: Window[] = [];
  for (const window of windowsOf(store, documents, T)) {
    const tokens = await store.read(window.begin + 1, window.begin + 1 + window.length);
    if (tokens.some((marked) => marked >= 0)) windows.push(window);
  }
  if (windows.length === 0) {
    const notes = store.notes.map((note) => `; ${formatNote(note)}`).join('');
    throw new Error(`data: no document has two tokens and something to train on${notes}`);
  }
  return new StoredDataset(store, isPacked ? pack(windows, T, seed) : windows.map((window) => [window]), T, isPacked);
}
