// Ranks that share sequences: each has a part of the tokens, and in attention a part of the heads (Jacobs et al. 2023, arXiv 2309.14509).

import { operation } from '../autograd/tape.ts';
import { kernels } from '../runtime/native.ts';
import { tidy } from '../runtime/scope.ts';
import { empty, type Tensor } from '../runtime/tensor.ts';
import { requireShape } from './check.ts';

/** Ranks [first, first + size) of a group, which share sequences. */
export interface SequenceRanks {
  first: number;
  size: number;
  /** This one among them, from 0. */
  rank: number;
}

/** Some heads of a rank's tokens, and where they go. */
interface Run {
  /** The rank that gets them. */
  to: number;
  /** First head here, and first head there. */
  from: number;
  at: number;
  count: number;
  /** Whether an earlier run has the same heads. */
  isReplica: boolean;
}

/**
 * Swaps tokens for heads. Before it a rank has all heads of T/P tokens of each sequence, (B·T/P, n·D); after it some heads of all T tokens,
 * (B·T, own·D). The n heads go to the ranks in order, in equal parts. Where P does not divide n, each head is first repeated, so often that
 * their number is the least common multiple of n and P: queries of a rank then read its keys and values in groups of one size, as without
 * ranks. `groups`: the n heads are so many groups of neighbours, and a rank gets its part of each, one group after the other.
 */
export class HeadExchange {
  readonly #ranks: SequenceRanks;
  /** Length of a sequence over all ranks. */
  readonly T: number;
  readonly #D: number;

  /** @param T length of a sequence over all ranks, a multiple of their number. @param D size of a head */
  constructor(ranks: SequenceRanks, T: number, D: number) {
    if (T % ranks.size !== 0)
      throw new RangeError(`HeadExchange: T ${T} must be a multiple of the ${ranks.size} ranks`);
    this.#ranks = ranks;
    this.T = T;
    this.#D = D;
  }

  /** Number of heads that each rank gets of n. */
  own(n: number, groups = 1): number {
    return (groups * leastCommonMultiple(n / groups, this.#ranks.size)) / this.#ranks.size;
  }

  /** @param x (N,n·D), of this rank's tokens @returns (N·P,own·D), of this rank's heads */
  toHeads(x: Tensor, groups = 1): Tensor {
    const { size } = this.#ranks;
    const [N = 0, width = 0] = x.shape;
    const n = width / this.#D;
    const own = this.own(n, groups) * this.#D;
    const sent = this.#make(x, size * N, own);
    this.#runs(n, groups, ({ to, from, at, count }) =>
      kernels.cast(this.#columns(x, from, count), this.#columns(sent.rows(to * N, (to + 1) * N), at, count)),
    );
    const received = this.#exchanged(sent);
    if (N * size === this.T) return received;
    const out = this.#make(x, size * N, own);
    this.#pieces(N, (part, whole) => kernels.cast(received.rows(...part), out.rows(...whole)));
    received.dispose();
    return out;
  }

  /**
   * The way back, which is also the gradient's: heads that several ranks have are summed.
   * @param y (N·P,own·D), of this rank's heads; not overwritten
   * @param n number of heads @returns (N,n·D), of this rank's tokens
   */
  toTokens(y: Tensor, n: number, groups = 1): Tensor {
    const { size } = this.#ranks;
    const own = this.own(n, groups) * this.#D;
    const rows = y.shape[0]!;
    requireShape('HeadExchange', 'y', y, [rows, own]);
    const N = rows / size;
    let sent = y.alias();
    if (rows !== this.T) {
      const ordered = this.#make(y, rows, own);
      this.#pieces(N, (part, whole) => kernels.cast(sent.rows(...whole), ordered.rows(...part)));
      sent.dispose();
      sent = ordered;
    }
    const received = this.#exchanged(sent);
    const out = this.#make(y, N, n * this.#D);
    this.#runs(n, groups, ({ to, from, at, count, isReplica }) => {
      const part = this.#columns(received.rows(to * N, (to + 1) * N), at, count);
      const into = this.#columns(out, from, count);
      if (isReplica) kernels.add_to(part, into);
      else kernels.cast(part, into);
    });
    received.dispose();
    return out;
  }

  #exchanged(sent: Tensor): Tensor {
    const { first, size } = this.#ranks;
    const received = this.#make(sent, ...(sent.shape as [number, number]));
    kernels.all_to_all(sent, received, { first, size });
    sent.dispose();
    return received;
  }

  /** Calls fn for each rank's part of each sequence: its rows [begin, end) by rank, and by sequence. */
  #pieces(N: number, fn: (part: [number, number], whole: [number, number]) => void): void {
    const { size } = this.#ranks;
    const t = this.T / size;
    for (let b = 0; b < N / t; b++) {
      for (let rank = 0; rank < size; rank++) {
        const part = rank * N + b * t;
        const whole = b * this.T + rank * t;
        tidy(() => fn([part, part + t], [whole, whole + t]));
      }
    }
  }

  /** Calls fn for each run of heads; views that it makes end with it. */
  #runs(n: number, groups: number, fn: (run: Run) => void): void {
    const { size } = this.#ranks;
    const inGroup = n / groups;
    const places = leastCommonMultiple(inGroup, size);
    const repeats = places / inGroup;
    const ofRank = places / size;
    const step = repeats === 1 ? ofRank : 1;
    for (let g = 0; g < groups; g++) {
      for (let place = 0; place < places; place += step) {
        const to = Math.floor(place / ofRank);
        const from = g * inGroup + Math.floor(place / repeats);
        const at = g * ofRank + (place % ofRank);
        tidy(() => fn({ to, from, at, count: step, isReplica: place % repeats > 0 }));
      }
    }
  }

  #columns(x: Tensor, head: number, count: number): Tensor {
    return x.alias().columns(head * this.#D, (head + count) * this.#D);
  }

  #make({ dtype, device }: Tensor, rows: number, cols: number): Tensor {
    return empty([rows, cols], { dtype, device, category: 'activation' });
  }
}

/** {@link HeadExchange.toHeads} with gradients. @param x (N,n·D) */
export function tokensToHeads(x: Tensor, exchange: HeadExchange, n: number): Tensor {
  return operation({
    name: 'tokensToHeads',
    inputs: { x },
    saved: {},
    forward: () => ({ output: exchange.toHeads(x) }),
    backward: (dy) => ({ x: exchange.toTokens(dy, n) }),
  });
}

/** {@link HeadExchange.toTokens} with gradients, for heads that one rank has each. @param y (N·P,n/P·D) */
export function headsToTokens(y: Tensor, exchange: HeadExchange, n: number): Tensor {
  return operation({
    name: 'headsToTokens',
    inputs: { y },
    saved: {},
    forward: () => ({ output: exchange.toTokens(y, n) }),
    backward: (dx) => ({ y: exchange.toHeads(dx) }),
  });
}

function leastCommonMultiple(a: number, b: number): number {
  const divisor = (x: number, y: number): number => (y === 0 ? x : divisor(y, x % y));
  return (a * b) / divisor(a, b);
}
