// A training step: forward and backward of the micro-batches, clipping, update. TrainStep runs it, and the planner does on `meta`.

import { Tape } from '../autograd/tape.ts';
import type { Batch } from '../models/batch.ts';
import type { Decoder } from '../models/decoder.ts';
import type { LossOptions, Objective } from '../objectives/objective.ts';
import { type ClippedNorm, type Clipping, clipGradNorm, clippedNorm } from '../optim/clip.ts';
import type { Optimizer } from '../optim/optimizer.ts';
import type { ProcessGroup } from '../ranks/process_group.ts';
import { kernels } from '../runtime/native.ts';
import { tidy } from '../runtime/scope.ts';
import { empty, type Tensor } from '../runtime/tensor.ts';
import { Exchange } from './exchange.ts';

/** Results of a step on the device; they can be read while the next step runs. */
export interface StepScalars extends ClippedNorm {
  /** (): the loss over all micro-batches. */
  loss: Tensor;
}

/** Throws if the model's weights are in 4 bits and more than adapters would be trained. */
export function requireTrainable(model: Decoder): void {
  const { quantization } = model.config;
  if (!quantization) return;
  const own = [...model.namedParameters().values()].find(({ requiresGrad }) => requiresGrad);
  if (!own) return;
  throw new Error(
    `TrainStep: the model trains ${own}, but its projections are in 4 bits (${quantization}): they have no gradients, and what was trained ` +
      'could not be saved with them. Train adapters (LoRA) and nothing else, or all parameters without quantization',
  );
}

/** Allocates the results of one step; the caller disposes them. */
export function stepScalars(model: Decoder): StepScalars {
  const { device } = model;
  return tidy(() => {
    const loss = empty([], { dtype: model.dtype === 'float64' ? 'float64' : 'float32', device });
    const norm = clippedNorm(model.trainableParameters());
    return { loss: loss.keep(), ...norm };
  });
}

export function disposeScalars(scalars: StepScalars): void {
  for (const tensor of Object.values(scalars)) tensor.dispose();
}

export interface StepParts {
  model: Decoder;
  optimizer: Optimizer;
  /** Overwritten. */
  scalars: StepScalars;
}

export interface MicroStepOptions extends LossOptions {
  objective: Objective;
  learningRate: number;
  maxGradNorm: number;
  /** @default 'global', which maxGradNorm 0 turns off */
  clipping?: Clipping;
  /** Dropout of micro-batch 0. Each further one has the next `step`. */
  dropout: { seed: number; step: number };
  /** Numbers of the micro-batches in their step, over all ranks, which dropout depends on. @default 0, 1, … */
  numbers?: readonly number[];
  /** The ranks that compute the step, each from its own micro-batches. @default null: this process alone */
  group?: ProcessGroup | null;
}

/**
 * Yields between micro-batches. If the caller stops there, nothing has been updated. Gradients are always freed at the end.
 * @param microBatches called one at a time, when needed; each batch is disposed after use
 */
export function* microSteps(
  { model, optimizer, scalars }: StepParts,
  microBatches: readonly (() => Batch)[],
  options: MicroStepOptions,
): Generator<void, void> {
  const { objective, policy, divisor, learningRate, maxGradNorm, clipping = 'global', dropout } = options;
  const { numbers = [], group = null } = options;
  if (model.gradientDtype === 'bfloat16' && microBatches.length > 1) {
    throw new RangeError(
      `TrainStep: gradientDtype 'bfloat16' is for one micro-batch a step, got ${microBatches.length}: their sum would be rounded after each`,
    );
  }
  try {
    kernels.fill(scalars.loss, 0);
    for (const [i, makeBatch] of microBatches.entries()) {
      if (i > 0) yield;
      tidy(() => {
        const batch = makeBatch();
        const tape = new Tape();
        const context = { policy, divisor, dropout: { ...dropout, step: dropout.step + (numbers[i] ?? i) } }; // another mask for each
        const loss = tape.run(() => objective.loss(model, batch, context));
        tape.backward(loss);
        kernels.add_to(loss, scalars.loss);
      });
    }
    const exchange = new Exchange(group, optimizer);
    const trained = model.trainableParameters();
    exchange.sum(scalars.loss);
    for (const parameter of trained) exchange.sumGradient(parameter);
    clipGradNorm(trained, clipping === 'global' ? maxGradNorm : 0, scalars, exchange);
    if (clipping === 'parameter') updateClipped({ model, optimizer, scalars }, { learningRate, maxGradNorm });
    else optimizer.step(learningRate, scalars.factor);
    for (const parameter of trained) exchange.gather(parameter);
  } finally {
    model.zeroGrad();
  }
}

/** Updates with each gradient clipped by its own norm. `scalars.factor` is NaN where one of them is not finite: then nothing is changed. */
function updateClipped(
  { model, optimizer, scalars }: StepParts,
  { learningRate, maxGradNorm }: Pick<MicroStepOptions, 'learningRate' | 'maxGradNorm'>,
): void {
  const indices = new Map(model.trainableParameters().map((parameter, i) => [parameter, i]));
  optimizer.beginStep({ learningRate, gradientFactor: scalars.factor });
  tidy(() => {
    const { dtype, device } = scalars.norm;
    const own = empty([2], { dtype, device, category: 'workspace' });
    const [norm, factor] = [own.rows(0, 1), own.rows(1, 2)];
    for (const parameter of optimizer.parameters) {
      if (!parameter.grad) continue;
      const index = indices.get(parameter);
      if (index === undefined)
        throw new Error(`TrainStep: clipping 'parameter' is for the model's parameters, ${parameter} is none`);
      kernels.clip_factor(scalars.squares.rows(index, index + 1), norm, factor, maxGradNorm);
      kernels.scale_by(factor, scalars.factor, null, factor);
      optimizer.update(parameter, { learningRate, gradientFactor: factor });
    }
  });
}
