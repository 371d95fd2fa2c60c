// Random numbers and orders by seed: the same everywhere and always.
import { setImmediate } from 'node:timers/promises';

/** Swaps between two yields to the event loop: a millisecond or two. */
const SWAPS = 2 ** 16;

/** Numbers 0 to length - 1 in the order of an epoch (Fisher-Yates). */
export function shuffled(length: number, seed: number, epoch: number): Int32Array {
  const order = Int32Array.from({ length }, (_, i) => i);
  swap(order, uniforms(seed, epoch), length - 1, 0);
  return order;
}

/** The same order, without blocking the event loop: 10 million take a second. */
export async function shuffledInTurns(length: number, seed: number, epoch: number): Promise<Int32Array> {
  const order = new Int32Array(length);
  for (let i = 0; i < length; i++) order[i] = i;
  const random = uniforms(seed, epoch);
  for (let last = length - 1; last > 0; last -= SWAPS) {
    swap(order, random, last, Math.max(0, last - SWAPS));
    await setImmediate();
  }
  return order;
}

/** Fixes positions from `last` down to `end`, exclusive. */
function swap(order: Int32Array, random: () => number, last: number, end: number): void {
  for (let i = last; i > end; i--) {
    const j = Math.floor(random() * (i + 1));
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
}

/** Numbers in [0, 1) by seed and stream (splitmix32). */
export function uniforms(seed: number, stream: number): () => number {
  let state = Math.imul(seed ^ 0x5bf03635, 0x9e3779b1) ^ Math.imul(stream + 1, 0x85ebca6b);
  return () => {
    state = (state + 0x9e3779b9) | 0;
    let word = state ^ (state >>> 16);
    word = Math.imul(word, 0x21f0aaad);
    word = Math.imul(word ^ (word >>> 15), 0x735a2d97);
    return ((word ^ (word >>> 15)) >>> 0) / 2 ** 32;
  };
}
