// Clipping by the global norm of all gradients, without the host waiting for the norm.
import { computeDtype } from '../dtype.ts';
import { kernels } from '../native.ts';
import { requireFinite } from '../ops/check.ts';
import { tidy } from '../scope.ts';
import { empty, type Tensor } from '../tensor.ts';

/** Parts that a tensor is summed in; see native/ops/reduction.h. */
const NUM_PARTIALS = 64;

export interface ClippedNorm {
  /** (1,): norm over all gradients, before clipping. */
  norm: Tensor;
  /** (1,): what gradients are to be multiplied by, at most 1; NaN where the norm is not finite. AdamW applies it. */
  factor: Tensor;
  /** (P,): sum of squares of each gradient, in the order of the parameters that have one. */
  squares: Tensor;
}

/**
 * Norm over the gradients of all parameters that have one. Changes no gradient: the factor goes to the optimizer.
 * @param maxNorm 0: no clipping
 */
export function clipGradNorm(parameters: readonly Tensor[], maxNorm: number): ClippedNorm {
  requireFinite('clipGradNorm', 'maxNorm', maxNorm, { min: 0 });
  const gradients = parameters.flatMap(({ grad }) => (grad ? [grad] : []));
  if (gradients.length === 0) throw new Error('clipGradNorm: no parameter has a gradient');
  const { device } = gradients[0]!;
  const dtype = computeDtype(gradients[0]!.dtype);
  return tidy(() => {
    const make = (length: number) => empty([length], { dtype, device, category: 'other' });
    const [norm, factor, squares] = [make(1), make(1), make(gradients.length)];
    const partials = empty([NUM_PARTIALS], { dtype: 'float64', device, category: 'workspace' });
    gradients.forEach((gradient, i) => {
      kernels.sum_of_squares(gradient, squares.rows(i, i + 1), partials);
    });
    kernels.clip_factor(squares, norm, factor, maxNorm);
    return { norm, factor, squares };
  });
}
