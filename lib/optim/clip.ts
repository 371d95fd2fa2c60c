// Clips gradients by their norm: by the norm of all, or each by its own. The host does not wait for the norm.

import type { Parameter } from '../autograd/parameter.ts';
import { requireFinite } from '../ops/check.ts';
import { numPartials } from '../ops/workspace.ts';
import type { Shards } from '../ranks/shards.ts';
import type { Device } from '../runtime/device.ts';
import { computeDtype } from '../runtime/dtype.ts';
import { kernels } from '../runtime/native.ts';
import { tidy } from '../runtime/scope.ts';
import { empty, type Tensor } from '../runtime/tensor.ts';

/**
 * What bounds gradients to maxGradNorm. 'global': the norm of all. 'previous': the norm of all in the step before; the first step clips by
 * parameter. 'parameter': each parameter's gradient by its own norm. 'none': nothing, whatever maxGradNorm is.
 */
export type Clipping = 'global' | 'previous' | 'parameter' | 'none';

export const CLIPPINGS = ['global', 'previous', 'parameter', 'none'] as const satisfies Clipping[];

/** What is chosen; without `clipping`: 'none' where maxGradNorm is 0, else 'previous' with the step in the backward, 'global' without. */
export interface ClippingChoice {
  clipping?: Clipping | null;
  maxGradNorm: number;
  /** Whether parameters are updated inside the backward, which frees each gradient. */
  inBackward: boolean;
}

export function clippingOf({ clipping, maxGradNorm, inBackward }: ClippingChoice): Clipping {
  if (clipping) return clipping;
  return maxGradNorm === 0 ? 'none' : inBackward ? 'previous' : 'global';
}

/** Why a choice is refused, to follow the name of the option `clipping`; null: it is not. `name`: of inBackward. */
export function clippingProblem(choice: ClippingChoice, name: string): string | null {
  const { clipping, maxGradNorm, inBackward } = choice;
  if (!clipping || clipping === 'none') return null;
  if (clipping === 'global' && inBackward) {
    return `'global' needs all gradients at once, and ${name} true frees each before the next: choose 'previous' or 'parameter', or ${name} false`;
  }
  if (clipping === 'previous' && !inBackward) {
    return `'previous' is for ${name} true, and ${name} is false, where the norm of all gradients is there: choose 'global'`;
  }
  if (maxGradNorm === 0) {
    return `'${clipping}' contradicts maxGradNorm 0, which clips nothing: choose 'none', or a maxGradNorm above 0`;
  }
  return null;
}

export interface ClippedNorm {
  /** (1,): norm of all gradients before clipping. */
  norm: Tensor;
  /** (1,): factor for the gradients, at most 1; NaN if the norm is not finite. The optimizer applies it. */
  factor: Tensor;
  /** (P,): sum of squares of each parameter's gradient. */
  squares: Tensor;
}

/** Allocates the results of clipGradNorm for these parameters; the caller disposes them. */
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

/** Gradients of which each of several ranks has a part. */
export interface SharedNorm {
  /** This rank's; null: it has all. */
  readonly shards: Shards | null;
  /** Overwrites a tensor with its sum over all ranks. */
  sum(tensor: Tensor): void;
}

/**
 * Computes the norm of all gradients and the factor that clips them; a parameter without a gradient counts as 0. Changes no gradient.
 * @param maxNorm 0: no clipping
 * @param into overwritten and returned. @default new memory, which the caller disposes
 * @param shared with shards: each rank counts its parts, and the sum is the norm
 */
export function clipGradNorm(
  parameters: readonly Parameter[],
  maxNorm: number,
  into?: ClippedNorm,
  shared: SharedNorm | null = null,
): ClippedNorm {
  requireFinite('clipGradNorm', 'maxNorm', maxNorm, { min: 0 });
  if (parameters.length === 0) throw new Error('clipGradNorm: parameters is empty');
  const result = into ?? clippedNorm(parameters);
  if (result.squares.size !== parameters.length) {
    throw new RangeError(`clipGradNorm: into has room for ${result.squares.size} parameters, got ${parameters.length}`);
  }
  try {
    tidy(() => {
      const partials = squarePartials(result.norm.device);
      parameters.forEach(({ grad }, i) => {
        const square = result.squares.rows(i, i + 1);
        sumOfSquares(grad, square, partials, shared);
      });
      if (shared?.shards) shared.sum(result.squares);
      kernels.clip_factor(result.squares, result.norm, result.factor, maxNorm);
    });
  } catch (error) {
    if (!into) for (const tensor of Object.values(result)) tensor.dispose();
    throw error;
  }
  return result;
}

/** square := that of this rank's part of a gradient, or of the whole one. */
function sumOfSquares(grad: Tensor | null, square: Tensor, partials: Tensor, shared: SharedNorm | null): void {
  const shards = shared?.shards;
  if (grad && !shards) kernels.sum_of_squares(grad, square, partials);
  else {
    kernels.fill(square, 0);
    if (grad) shards?.of(grad, (part) => kernels.sum_of_squares(part, square, partials));
  }
}

/** Workspace of sum_of_squares. */
function squarePartials(device: Device): Tensor {
  return empty([numPartials(device)], { dtype: 'float64', device, category: 'workspace' });
}

/** Where the numbers of one gradient go. */
export interface OwnNorm {
  /** (1,): sum of squares. */
  square: Tensor;
  /** (1,) */
  norm: Tensor;
  /** (1,): at most `scale`; NaN where the norm is not finite. */
  factor: Tensor;
}

/**
 * Norm of one gradient, and the factor that clips it by that alone.
 * @param into overwritten
 * @param maxNorm 0: no clipping
 * @param scale a further factor
 * @param shared as for clipGradNorm
 */
export function clipOwnNorm(
  gradient: Tensor,
  { square, norm, factor }: OwnNorm,
  maxNorm: number,
  scale = 1,
  shared: SharedNorm | null = null,
): void {
  tidy(() => sumOfSquares(gradient, square, squarePartials(gradient.device), shared));
  if (shared?.shards) shared.sum(square);
  kernels.clip_factor(square, norm, factor, maxNorm);
  if (scale !== 1) kernels.scale(factor, factor, scale);
}

/** What clip_factor gives for a norm that the host knows: NaN, so that nothing is updated, where it is not finite. */
export function factorOf(norm: number, maxNorm: number): number {
  if (!Number.isFinite(norm)) return Number.NaN;
  return maxNorm > 0 ? Math.min(1, maxNorm / (norm + 1e-6)) : 1;
}
