// Dropout with counter-based random numbers.

import { operation } from '../autograd/tape.ts';
import { kernels } from '../runtime/native.ts';
import { tidy } from '../runtime/scope.ts';
import { empty, type Tensor } from '../runtime/tensor.ts';
import { requireFinite, requireFloat, requireInteger, rowsAndCols } from './check.ts';

/** Decides which elements are dropped, together with the op's number and the element's place, and nothing else. */
export interface DropoutMask {
  /** Probability that an element is dropped, in [0, 1). */
  probability: number;
  seed: number;
  /** Number of the forward: each has its own masks. */
  step: number;
  /** Row of the whole input that x begins with, if x is a chunk of its rows. @default 0 */
  firstRow?: number;
  /**
   * Where rows lie in the whole batch, of sequences of T, where x has tokens begin to begin + count - 1 of each: a rank drops what one rank
   * alone would. @default null: x is the whole batch, or the chunk of it that firstRow says
   */
  rows?: { T: number; begin: number; count: number } | null;
}

/** step and op are 32-bit words of the generator's counter. Larger ones would repeat the masks of smaller ones. */
const MAX_WORD = 2 ** 32 - 1;

export function requireMask(op: string, { probability, seed, step }: DropoutMask): void {
  requireFinite(op, 'dropout probability', probability, { min: 0, max: 1 - 2 ** -32 });
  requireInteger(op, 'dropout seed', seed);
  requireInteger(op, 'dropout step', step, { min: 0, max: MAX_WORD });
}

/**
 * y = x * keep / (1 - probability), of x's shape.
 * @param op a different number for each place where dropout is applied
 */
export function dropout(
  x: Tensor,
  { probability, seed, step, firstRow = 0, rows: ofSequences = null }: DropoutMask,
  op: number,
): Tensor {
  requireFloat('dropout', 'x', x);
  requireMask('dropout', { probability, seed, step });
  requireInteger('dropout', 'firstRow', firstRow, { min: 0 });
  requireInteger('dropout', 'op', op, { min: 0, max: MAX_WORD });
  const { shape, dtype, device } = x;
  const [rows, cols] = rowsAndCols(x);
  const flat = (tensor: Tensor) => tensor.alias().reshape([rows, cols]);
  const mask = { probability, seed, step, rows: ofSequences };
  const apply = (from: Tensor, to: Tensor) => tidy(() => kernels.dropout(flat(from), flat(to), mask, op, firstRow));
  return operation({
    name: 'dropout',
    inputs: { x },
    saved: {},
    forward() {
      const y = empty(shape, { dtype, device, category: 'activation' });
      apply(x, y);
      return { output: y };
    },
    backward(dy) {
      const dx = dy.isShared ? empty(shape, { dtype, device, category: 'activation' }) : dy;
      apply(dy, dx);
      return { x: dx };
    },
  });
}
