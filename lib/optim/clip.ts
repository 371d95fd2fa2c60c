// Clipping by the global norm of all gradients, without the host waiting for the norm.

import type { Parameter } from '../autograd/parameter.ts';
import { requireFinite } from '../ops/check.ts';
import { numPartials } from '../ops/workspace.ts';
import { computeDtype } from '../runtime/dtype.ts';
import { kernels } from '../runtime/native.ts';
import { tidy } from '../runtime/scope.ts';
import { empty, type Tensor } from '../runtime/tensor.ts';

export interface ClippedNorm {
  /** (1,): norm over all gradients, before clipping. */
  norm: Tensor;
  /** (1,): what gradients are to be multiplied by, at most 1; NaN where the norm is not finite. AdamW applies it. */
  factor: Tensor;
  /** (P,): sum of squares of each parameter's gradient. */
  squares: Tensor;
}

/** Memory for the norms of these parameters' gradients; the caller disposes it. */
export function clippedNorm(parameters: readonly Parameter[]): ClippedNorm {
  const { device, dtype } = parameters[0]!;
  const options = { dtype: computeDtype(dtype), device, category: 'other' } as const;
  return tidy(() => {
    const made = {
      norm: empty([1], options),
      factor: empty([1], options),
      squares: empty([parameters.length], options),
    };
    for (const tensor of Object.values(made)) tensor.keep();
    return made;
  });
}

/**
 * Norm over the gradients of all parameters; those without a gradient count as 0. Changes no gradient: the factor goes to the optimizer.
 * @param maxNorm 0: no clipping
 * @param into overwritten and returned. @default new memory, which the caller disposes
 */
export function clipGradNorm(parameters: readonly Parameter[], maxNorm: number, into?: ClippedNorm): ClippedNorm {
  requireFinite('clipGradNorm', 'maxNorm', maxNorm, { min: 0 });
  if (parameters.length === 0) throw new Error('clipGradNorm: there are no parameters');
  const result = into ?? clippedNorm(parameters);
  if (result.squares.size !== parameters.length) {
    throw new RangeError(`clipGradNorm: into has room for ${result.squares.size} parameters, got ${parameters.length}`);
  }
  try {
    tidy(() => {
      const partials = empty([numPartials(result.norm.device)], {
        dtype: 'float64',
        device: result.norm.device,
        category: 'workspace',
      });
      parameters.forEach(({ grad }, i) => {
        const square = result.squares.rows(i, i + 1);
        if (grad) kernels.sum_of_squares(grad, square, partials);
        else kernels.fill(square, 0);
      });
      kernels.clip_factor(result.squares, result.norm, result.factor, maxNorm);
    });
  } catch (error) {
    if (!into) for (const tensor of Object.values(result)) tensor.dispose();
    throw error;
  }
  return result;
}
