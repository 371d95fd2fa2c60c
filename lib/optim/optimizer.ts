// The interface of optimizers, as training steps and checkpoints use it.
import type { Parameter } from '../autograd/parameter.ts';
import type { Shards } from '../ranks/shards.ts';
import type { Tensor } from '../runtime/tensor.ts';

export interface UpdateOptions {
  learningRate: number;
  /** (1,): factor on the gradients, from clipGradNorm; null: 1. NaN: the step changes nothing. @default null */
  gradientFactor?: Tensor | null;
}

/** An optimizer owns its state, which its constructor allocates. */
export interface Optimizer {
  readonly parameters: readonly Parameter[];
  /** Which part of each parameter `update` updates, where other ranks update the others; null or absent: the whole. */
  readonly shards?: Shards | null;
  /** Begins a step; calls of `update` follow. */
  beginStep(options: UpdateOptions): void;
  /** Updates one of the parameters from its gradient. */
  update(parameter: Parameter, options: UpdateOptions): void;
  /** A whole step: updates every parameter that has a gradient. */
  step(learningRate: number, gradientFactor?: Tensor | null): void;
  /** All tensors of the optimizer by name, for checkpoints. */
  state(): Iterable<[name: string, tensor: Tensor]>;
  /** Another optimizer with the same settings, for these parameters; the planner makes one on `meta`. */
  like(parameters: readonly Parameter[]): Optimizer;
  dispose(): void;
}
