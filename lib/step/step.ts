// One training step: micro-batches forward and backward, clip, update. The trainer runs it, and so does the planner, on `meta`.

import { Tape } from '../autograd/tape.ts';
import type { Batch, Decoder } from '../models/decoder.ts';
import type { StepPolicy } from '../models/policy.ts';
import type { AdamW } from '../optim/adamw.ts';
import { type ClippedNorm, clipGradNorm, clippedNorm } from '../optim/clip.ts';
import { kernels } from '../runtime/native.ts';
import { tidy } from '../runtime/scope.ts';
import { empty, type Tensor } from '../runtime/tensor.ts';

export interface StepOptions {
  policy: StepPolicy;
  learningRate: number;
  /** Clip the global norm of the gradients to this; 0: no clipping. */
  maxGradNorm: number;
  /** Number of this step: dropout draws by it. @default 0 */
  step?: number;
  /** Of dropout. @default 0 */
  seed?: number;
  /** Target tokens of all micro-batches that are not ignored: what the losses are divided by. */
  numTargets: number;
}

/** What a step leaves to be read while the next one runs. Made once, reused, disposed by the caller. */
export interface StepResult extends ClippedNorm {
  /** (): mean loss over the targets of all micro-batches. */
  loss: Tensor;
}

/** Memory for the results of steps; a run alternates between two, so that one can be read while the other is written. */
export function stepResult(model: Decoder): StepResult {
  const { device } = model;
  return tidy(() => {
    const loss = empty([], { dtype: model.dtype === 'float64' ? 'float64' : 'float32', device });
    const norm = clippedNorm(model.trainableParameters());
    return { loss: loss.keep(), ...norm };
  });
}

export function disposeResult(result: StepResult): void {
  for (const tensor of Object.values(result)) tensor.dispose();
}

/**
 * The parts of a step, between which it may be left: then nothing is updated. Gradients are gone afterwards in any case.
 * @param microBatches made when their turn comes, disposed after it
 */
export function* stepParts(
  model: Decoder,
  optimizer: AdamW,
  microBatches: readonly (() => Batch)[],
  options: StepOptions,
  result: StepResult,
): Generator<void, void> {
  const { policy, learningRate, maxGradNorm, numTargets, step = 0, seed = 0 } = options;
  if (model.gradientDtype === 'bfloat16' && microBatches.length > 1) {
    throw new RangeError(
      `trainStep: gradientDtype 'bfloat16' is for one micro-batch a step, got ${microBatches.length}: their sum would be rounded after each`,
    );
  }
  try {
    kernels.fill(result.loss, 0);
    for (const [i, makeBatch] of microBatches.entries()) {
      if (i > 0) yield;
      tidy(() => {
        const batch = makeBatch();
        const tape = new Tape();
        model.dropout = { seed, step: step * microBatches.length + i }; // another mask for each micro-batch
        const part = tape.run(() => model.loss(batch, policy, { divisor: Math.max(numTargets, 1) }).loss);
        tape.backward(part);
        kernels.add_to(part, result.loss);
      });
    }
    clipGradNorm(model.trainableParameters(), maxGradNorm, result);
    optimizer.step(learningRate, result.factor);
  } finally {
    model.dropout = null;
    model.zeroGrad();
  }
}

/**
 * Enqueues a step. Resolves when all is enqueued, at most one micro-batch ahead of the device.
 * @returns false where `signal` stopped it between two micro-batches, with nothing updated
 */
export async function trainStep(
  model: Decoder,
  optimizer: AdamW,
  microBatches: readonly (() => Batch)[],
  options: StepOptions,
  result: StepResult,
  signal?: AbortSignal,
): Promise<boolean> {
  let before: Promise<void> = Promise.resolve();
  for (const _ of stepParts(model, optimizer, microBatches, options, result)) {
    const enqueued = model.device.synchronize();
    enqueued.catch(() => {}); // told by the next await
    await before;
    before = enqueued;
    if (signal?.aborted) return false;
  }
  await before;
  return true;
}
