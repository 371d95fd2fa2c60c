// The optimizer step inside the backward: each parameter is updated, and its gradient freed, as soon as that is complete.

import type { Parameter } from '../autograd/parameter.ts';
import { Tape } from '../autograd/tape.ts';
import type { Batch } from '../models/batch.ts';
import { clipOwnNorm, factorOf } from '../optim/clip.ts';
import { kernels } from '../runtime/native.ts';
import { empty, type Tensor } from '../runtime/tensor.ts';
import { Exchange } from './exchange.ts';
import type { MicroStepOptions, StepParts } from './micro_steps.ts';

/**
 * Thrown where the step in the backward fails after its first update: some parameters have their new values, the others not. Continue from
 * a checkpoint. `cause` is what failed.
 */
export class HalfStepError extends Error {
  override readonly name = 'HalfStepError';

  constructor(numUpdated: number, numParameters: number, cause: unknown) {
    const message = cause instanceof Error ? cause.message : String(cause);
    super(
      `TrainStep: the step is half done, ${numUpdated} of ${numParameters} parameters are updated: continue from a checkpoint. ` +
        `It failed by: ${message}`,
      { cause },
    );
  }
}

export function requireOneMicroBatch(count: number): void {
  if (count === 1) return;
  throw new RangeError(
    `TrainStep: inBackward true is for one micro-batch a step, got ${count}: each gradient is used and freed in the first one's backward, ` +
      'so that no other could add to it. One micro-batch of more sequences, or inBackward false',
  );
}

/**
 * One step of one micro-batch: the forward, then, once the host has seen the loss, the backward with its updates, or `skip`. The batch and
 * the loss belong to the scope (`tidy`) around all of that.
 */
export class StepInBackward {
  readonly #parts: StepParts;
  readonly #options: MicroStepOptions;
  readonly #exchange: Exchange;
  readonly #tape = new Tape();
  readonly #loss: Tensor;
  /** Whether the optimizer has counted the step. */
  #isBegun = false;
  #numUpdated = 0;

  /** Enqueues the forward. `scalars.loss` is overwritten with the loss, over all ranks. */
  constructor(parts: StepParts, makeBatch: () => Batch, options: MicroStepOptions) {
    const { model, scalars } = parts;
    const { objective, policy, divisor, dropout, numbers = [0], group = null } = options;
    const numTrained = model.trainableParameters().length;
    if (scalars.squares.size !== numTrained) {
      throw new RangeError(`TrainStep: has room for ${scalars.squares.size} parameters, got ${numTrained}`);
    }
    this.#parts = parts;
    this.#options = options;
    this.#exchange = new Exchange(group, parts.optimizer);
    const batch = makeBatch();
    const context = { policy, divisor, dropout: { ...dropout, step: dropout.step + numbers[0]! } };
    this.#loss = this.#tape.run(() => objective.loss(model, batch, context));
    kernels.fill(scalars.loss, 0);
    kernels.add_to(this.#loss, scalars.loss);
    this.#exchange.sum(scalars.loss);
  }

  /**
   * Enqueues the backward and the updates; `norm` and `squares` are those of all gradients afterwards.
   * @param previousNorm for clipping 'previous'; null: there was no step before
   * @throws HalfStepError where something fails after the first update; any other error has changed nothing
   */
  backward(previousNorm: number | null): void {
    const { model, optimizer, scalars } = this.#parts;
    const { clipping, maxGradNorm } = this.#options;
    const exchange = this.#exchange;
    const trained = model.trainableParameters();
    const indices = new Map(trained.map((parameter, i) => [parameter, i]));
    const updated = new Set(optimizer.parameters);
    const clipsByOwn = clipping === 'parameter' || (clipping === 'previous' && previousNorm === null);
    const maxOwnNorm = clipsByOwn ? maxGradNorm : 0;
    const scale = clipping === 'previous' && previousNorm !== null ? factorOf(previousNorm, maxGradNorm) : 1;
    const onGradient = (parameter: Parameter) => {
      if (!updated.has(parameter)) return;
      const index = indices.get(parameter);
      const square =
        index === undefined
          ? empty([1], { dtype: scalars.squares.dtype, device: scalars.squares.device })
          : scalars.squares.rows(index, index + 1);
      exchange.sumGradient(parameter);
      clipOwnNorm(parameter.grad!, { ...scalars, square }, maxOwnNorm, scale, exchange);
      this.#begin();
      optimizer.update(parameter, { ...this.#rate, gradientFactor: scalars.factor });
      exchange.gather(parameter);
      this.#numUpdated += 1;
      parameter.zeroGrad();
    };
    try {
      kernels.fill(scalars.squares, 0); // of parameters without a gradient
      this.#tape.backward(this.#loss, null, { onGradient });
      this.#begin();
      kernels.clip_factor(scalars.squares, scalars.norm, scalars.factor, 0);
    } catch (error) {
      throw this.#isBegun ? new HalfStepError(this.#numUpdated, updated.size, error) : error;
    } finally {
      model.zeroGrad();
    }
  }

  /** Instead of the backward, where the loss is not finite: nothing is updated, and norm and squares are NaN. */
  skip(): void {
    const { norm, squares } = this.#parts.scalars;
    for (const numbers of [norm, squares]) kernels.fill(numbers, Number.NaN);
  }

  get #rate(): { learningRate: number } {
    const { learningRate } = this.#options;
    return { learningRate };
  }

  /** Before the first update, so that a step that fails earlier is not counted. */
  #begin(): void {
    if (this.#isBegun) return;
    this.#parts.optimizer.beginStep(this.#rate);
    this.#isBegun = true;
  }

  /** Frees what is saved where neither the backward nor an error has. */
  dispose(): void {
    this.#tape.dispose();
  }
}
