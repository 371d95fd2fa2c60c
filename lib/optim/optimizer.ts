// What a training step and checkpoints need of an optimizer.
import type { Parameter } from '../autograd/parameter.ts';
import type { Tensor } from '../runtime/tensor.ts';

export interface UpdateOptions {
  learningRate: number;
  /** (1,): factor on the gradients, from clipGradNorm; NaN leaves everything as it is. @default null: 1 */
  gradientFactor?: Tensor | null;
}

/** Its state belongs to it, and is allocated when it is made. */
export interface Optimizer {
  readonly parameters: readonly Parameter[];
  /** Counts a step, whose updates follow. */
  beginStep(options: UpdateOptions): void;
  /** Updates one of the parameters from its gradient. */
  update(parameter: Parameter, options: UpdateOptions): void;
  /** A whole step: every parameter that has a gradient is updated. */
  step(learningRate: number, gradientFactor?: Tensor | null): void;
  /** All of its tensors by name, for checkpoints. */
  state(): Iterable<[name: string, tensor: Tensor]>;
  /** One with the same settings for these parameters: the planner's, on `meta`. */
  like(parameters: readonly Parameter[]): Optimizer;
  dispose(): void;
}
