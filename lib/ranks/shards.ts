// Which part of each tensor is a rank's, where several share the states of an optimizer.
import { tidy } from '../runtime/scope.ts';
import type { Tensor } from '../runtime/tensor.ts';

/** Parts begin at multiples of it: it is the number of elements that share a scale in 8 bits, so that no two ranks share one. */
export const SHARD_BLOCK = 256;

/** Elements of a tensor, flat. */
export interface Range {
  begin: number;
  end: number;
}

/** One rank's parts: of n elements rank r has [r·p, min((r + 1)·p, n)), where p is `length(n)`. */
export class Shards {
  readonly rank: number;
  readonly size: number;

  constructor(rank: number, size: number) {
    if (!(Number.isSafeInteger(size) && size >= 1 && Number.isSafeInteger(rank) && rank >= 0 && rank < size)) {
      throw new RangeError(`Shards: rank must be an integer from 0 to size - 1, got rank ${rank}, size ${size}`);
    }
    this.rank = rank;
    this.size = size;
  }

  /** Elements of the longest part of n > 0: a multiple of SHARD_BLOCK, or n. */
  length(n: number): number {
    return Math.min(Math.ceil(Math.ceil(n / SHARD_BLOCK) / this.size) * SHARD_BLOCK, n);
  }

  /**
   * This rank's part of n elements; it may be empty.
   * @param unit elements that are counted as one: 1, or SHARD_BLOCK for their scales
   */
  range(n: number, unit: 1 | typeof SHARD_BLOCK = 1): Range {
    const part = this.length(n);
    const [begin, end] = [this.rank * part, (this.rank + 1) * part].map((i) => Math.ceil(Math.min(i, n) / unit));
    return { begin: begin!, end: end! };
  }

  /** Calls fn with this rank's part of a tensor, flat, as a view; does nothing where it is empty. */
  of(tensor: Tensor, fn: (part: Tensor) => void): void {
    const { begin, end } = this.range(tensor.size);
    if (begin < end) tidy(() => fn(tensor.alias().reshape([tensor.size]).rows(begin, end)));
  }
}
