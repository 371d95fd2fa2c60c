// Dropout by counter-based random numbers.

import { operation } from '../autograd/tape.ts';
import { kernels } from '../runtime/native.ts';
import { tidy } from '../runtime/scope.ts';
import { empty, type Tensor } from '../runtime/tensor.ts';
import { requireFinite, requireFloat, requireInteger, rowsAndCols } from './check.ts';

/** Which elements are dropped: a function of these numbers and the element's place alone. */
export interface DropoutMask {
  /** Share that is dropped, in [0, 1). */
  probability: number;
  seed: number;
  /** Another mask for each forward. */
  step: number;
}

/** A larger step or op would repeat the masks of a smaller one: they are words of the generator's counter. */
const MAX_WORD = 2 ** 32 - 1;

export function requireMask(op: string, { probability, seed, step }: DropoutMask): void {
  requireFinite(op, 'dropout probability', probability, { min: 0, max: 1 - 2 ** -32 });
  requireInteger(op, 'dropout seed', seed);
  requireInteger(op, 'dropout step', step, { min: 0, max: MAX_WORD });
}

/**
 * y = x * keep / (1 - probability), of x's shape.
 * @param op a number of its own for each place where dropout is applied
 */
export function dropout(x: Tensor, { probability, seed, step }: DropoutMask, op: number): Tensor {
  requireFloat('dropout', 'x', x);
  requireMask('dropout', { probability, seed, step });
  requireInteger('dropout', 'op', op, { min: 0, max: MAX_WORD });
  const { shape, dtype, device } = x;
  const [rows, cols] = rowsAndCols(x);
  const flat = (tensor: Tensor) => tensor.alias().reshape([rows, cols]);
  const apply = (from: Tensor, to: Tensor) =>
    tidy(() => kernels.dropout(flat(from), flat(to), { probability, seed, step }, op, 0));
  return operation({
    name: 'dropout',
    inputs: [x],
    saved: {},
    forward() {
      const y = empty(shape, { dtype, device, category: 'activation' });
      apply(x, y);
      return { output: y };
    },
    backward(dy) {
      const dx = dy.isShared ? empty(shape, { dtype, device, category: 'activation' }) : dy;
      apply(dy, dx);
      return [dx];
    },
  });
}
