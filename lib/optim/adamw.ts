// AdamW over named parameters. It owns its state.

import type { Parameter, StoredValues } from '../autograd/parameter.ts';
import { requireFinite, requireInteger } from '../ops/check.ts';
import { kernels } from '../runtime/native.ts';
import { tidy } from '../runtime/scope.ts';
import { type Tensor, zeros } from '../runtime/tensor.ts';
import { type AdamWState, makeState, type StateBits } from './adamw_state.ts';
import type { Optimizer, UpdateOptions } from './optimizer.ts';

export interface AdamWOptions {
  /** Decay of the running mean of gradients. @default 0.9 */
  beta1?: number;
  /** Decay of the running mean of squared gradients. @default 0.95 */
  beta2?: number;
  /** Added to the root of the mean square; at least 2^-126. @default 1e-8 */
  eps?: number;
  /** Decoupled weight decay of parameters with 2 or more dimensions. @default 0.1 */
  weightDecay?: number;
  /**
   * Whether bf16 parameters have an f32 master copy, which takes the updates. Without it, updates are rounded stochastically, so that small
   * ones still take effect on average. @default true
   */
  masterWeights?: boolean;
  /**
   * Bits of each element of m and v: 32; 16 (bf16); or 8, in blocks of 256 that share a scale, 2.03 bytes per parameter for both. Below 32
   * bits, values are rounded stochastically, so that small changes still take effect on average. Vectors and tensors of fewer than 4,096
   * elements always have 32 bits. @default 32
   */
  stateBits?: StateBits;
  /** Seed of stochastic rounding. @default 0 */
  seed?: number;
  /**
   * Whether f32 master copies start from the values in the model's files, before loading rounded them. The constructor reads these
   * synchronously. If false, they start from the parameters' values, until `readStored` or a checkpoint overwrites them. @default true
   */
  readStored?: boolean;
}

/** The smallest normal f32. With eps 0, an element that never had a gradient would become 0 / 0. */
export const LEAST_EPS = 2 ** -126;

/** Number of elements read at a time. */
const PIECE = 2 ** 22;

export class AdamW implements Optimizer {
  readonly parameters: readonly Parameter[];
  readonly options: Readonly<Required<Omit<AdamWOptions, 'readStored'>>>;
  readonly #state = new Map<Parameter, AdamWState>();
  /** Index of a parameter in `parameters`, which its stochastic rounding depends on. */
  readonly #indices: ReadonlyMap<Parameter, number>;
  /** (1,) int32: number of updates. It is on the device, because only the device knows whether a step was finite and counts. */
  readonly #numSteps: Tensor;

  /** Allocates all state (m, v, and master copies of bf16 parameters), so that memory does not grow in the first step. */
  constructor(parameters: readonly Parameter[], options: AdamWOptions = {}) {
    const {
      beta1 = 0.9,
      beta2 = 0.95,
      eps = 1e-8,
      weightDecay = 0.1,
      masterWeights = true,
      stateBits = 32,
      seed = 0,
      readStored = true,
    } = options;
    requireBeta('beta1', beta1);
    requireBeta('beta2', beta2);
    if (![32, 16, 8].includes(stateBits)) {
      throw new RangeError(`AdamW: stateBits must be 32, 16 or 8, got ${stateBits}`);
    }
    requireFinite('AdamW', 'eps', eps, { min: LEAST_EPS });
    requireFinite('AdamW', 'weightDecay', weightDecay, { min: 0 });
    requireInteger('AdamW', 'seed', seed);
    const [first] = parameters;
    if (!first) throw new RangeError('AdamW: parameters is empty');
    this.options = { beta1, beta2, eps, weightDecay, masterWeights, stateBits, seed };
    this.parameters = parameters;
    this.#indices = new Map(parameters.map((parameter, i) => [parameter, i]));
    const twice = parameters.find((parameter, i) => this.#indices.get(parameter) !== i);
    if (twice) throw new RangeError(`AdamW: ${twice} is in parameters twice`);
    // The scope frees what it made if memory runs out halfway.
    this.#numSteps = tidy(() => {
      const numSteps = zeros([1], { dtype: 'int32', device: first.device, category: 'optimizer' });
      for (const parameter of parameters) {
        this.#state.set(parameter, makeState(parameter, this.options));
      }
      for (const state of this.#state.values()) for (const tensor of Object.values(state)) tensor?.keep();
      return numSteps.keep();
    });
    try {
      for (const [parameter, { master }] of this.#state) {
        if (!master) continue;
        kernels.cast(parameter, master);
        parameter.master = master;
      }
      if (!readStored) return;
      for (const { master, stored, begin, end } of this.#rounded()) {
        tidy(() => flat(master).rows(begin, end).write(stored.readSync(begin, end)));
      }
    } catch (error) {
      this.dispose();
      throw error;
    }
  }

  /** Reads the values in the model's files, before rounding, into the master copies. Call it before the first step. */
  async readStored(): Promise<void> {
    for (const { master, stored, begin, end } of this.#rounded()) {
      const values = await stored.read(begin, end);
      tidy(() => flat(master).rows(begin, end).write(values));
      await master.device.synchronize(); // so that only one piece waits for the device at a time
    }
  }

  /** Pieces of all parameters that loading rounded and that have a master copy. */
  *#rounded(): Generator<{ master: Tensor; stored: StoredValues; begin: number; end: number }> {
    for (const [{ stored, size }, { master }] of this.#state) {
      if (!master || !stored) continue;
      for (let begin = 0; begin < size; begin += PIECE) {
        yield { master, stored, begin, end: Math.min(begin + PIECE, size) };
      }
    }
  }

  /** Updates every parameter that has a gradient, in place. */
  step(learningRate: number, gradientFactor: Tensor | null = null): void {
    const options = { learningRate, gradientFactor };
    this.beginStep(options);
    for (const parameter of this.parameters) if (parameter.grad) this.update(parameter, options);
  }

  beginStep({ learningRate, gradientFactor = null }: UpdateOptions): void {
    requireFinite('AdamW', 'learningRate', learningRate, { min: 0 });
    kernels.adamw_count(this.#numSteps, gradientFactor);
  }

  update(parameter: Parameter, { learningRate, gradientFactor = null }: UpdateOptions): void {
    const state = this.#state.get(parameter);
    if (!state) throw new Error(`AdamW: ${parameter} is not one of its parameters, or the optimizer was disposed`);
    if (!parameter.grad) throw new Error(`AdamW: ${parameter} has no gradient`);
    const { master, ...states } = state;
    const { beta1, beta2, eps, seed } = this.options;
    const weightDecay = parameter.shape.length >= 2 ? this.options.weightDecay : 0;
    const settings = {
      learningRate,
      beta1,
      beta2,
      eps,
      weightDecay,
      seed,
      op: this.#indices.get(parameter)!,
      first: 0,
    };
    kernels.adamw(parameter, master, parameter.grad, states, gradientFactor, this.#numSteps, settings);
  }

  like(parameters: readonly Parameter[]): AdamW {
    return new AdamW(parameters, { ...this.options, readStored: false });
  }

  /** All tensors of the optimizer by name, for checkpoints. */
  *state(): Generator<[string, Tensor]> {
    yield ['numSteps', this.#numSteps];
    for (const [i, parameter] of this.parameters.entries()) {
      const name = parameter.name ?? String(i);
      for (const [part, tensor] of Object.entries(this.#state.get(parameter)!)) {
        if (tensor) yield [`${name}.${part}`, tensor];
      }
    }
  }

  dispose(): void {
    this.#numSteps.dispose();
    for (const [parameter, state] of this.#state) {
      for (const tensor of Object.values(state)) tensor?.dispose();
      if (parameter.master === state.master) parameter.master = null;
    }
    this.#state.clear();
  }
  [Symbol.dispose](): void {
    this.dispose();
  }
}

const flat = (tensor: Tensor): Tensor => tensor.reshape([tensor.size]);

/** With 1, the bias correction 1 / (1 − beta^step) would be infinite. */
function requireBeta(argument: string, value: number): void {
  if (!(value >= 0 && value < 1)) throw new RangeError(`AdamW: ${argument} must be a number in [0, 1), got ${value}`);
}
