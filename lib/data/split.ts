// Splits the data of the same files into training and validation.
import { shuffled } from './shuffle.ts';
import type { TokenStore } from './token_store.ts';

/** Numbers of what is trained on and of what is validated on, ascending. */
export interface Split {
  training: number[];
  validation: number[];
}

/** Splits the numbers below `total` in two: `fraction` of them, at least one, drawn by the seed, for validation. */
export function split(total: number, fraction: number, seed: number): Split {
  const order = [...shuffled(total, seed, -1)];
  const count = Math.min(Math.max(1, Math.round(total * fraction)), total - 1);
  const ascending = (a: number, b: number) => a - b;
  return { validation: order.slice(0, count).sort(ascending), training: order.slice(count).sort(ascending) };
}

/** Splits a store's documents in two, those of one record together: answers of one conversation have the same text before them. */
export function splitDocuments(
  { records, numDocuments }: Pick<TokenStore, 'records' | 'numDocuments'>,
  fraction: number,
  seed: number,
): Split {
  const { training, validation } = split(records.length, fraction, seed);
  const documentsOf = (record: number) => {
    const [first, end] = [records[record]!, records[record + 1] ?? numDocuments];
    return Array.from({ length: end - first }, (_, i) => first + i);
  };
  return { training: training.flatMap(documentsOf), validation: validation.flatMap(documentsOf) };
}
