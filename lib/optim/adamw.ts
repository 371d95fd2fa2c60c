// AdamW over named parameters. It owns its state.

import type { Parameter, StoredValues } from '../autograd/parameter.ts';
import { requireFinite, requireInteger } from '../ops/check.ts';
import type { Shards } from '../ranks/shards.ts';
import { kernels } from '../runtime/native.ts';
import { tidy } from '../runtime/scope.ts';
import { empty, type Tensor, zeros } from '../runtime/tensor.ts';
import { type AdamWState, makeState, type StateBits, type StatePart, unitOf } from './adamw_state.ts';
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
  /**
   * Has states of this rank's part of each parameter alone, and `update` updates that alone; the others must do so with theirs, and
   * exchange the results. @default null: of the whole parameters
   */
  shards?: Shards | null;
}

/** The smallest normal f32. With eps 0, an element that never had a gradient would become 0 / 0. */
export const LEAST_EPS = 2 ** -126;

/** Number of elements read at a time. */
const PIECE = 2 ** 22;

export class AdamW implements Optimizer {
  readonly parameters: readonly Parameter[];
  readonly options: Readonly<Required<Omit<AdamWOptions, 'readStored'>>>;
  /** Null: this rank's part of the parameter is empty. */
  readonly #state = new Map<Parameter, AdamWState | null>();
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
      shards = null,
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
    this.options = { beta1, beta2, eps, weightDecay, masterWeights, stateBits, seed, shards };
    this.parameters = parameters;
    this.#indices = new Map(parameters.map((parameter, i) => [parameter, i]));
    const twice = parameters.find((parameter, i) => this.#indices.get(parameter) !== i);
    if (twice) throw new RangeError(`AdamW: ${twice} is in parameters twice`);
    // The scope frees what it made if memory runs out halfway.
    this.#numSteps = tidy(() => {
      const numSteps = zeros([1], { dtype: 'int32', device: first.device, category: 'optimizer' });
      for (const parameter of parameters) {
        this.#state.set(parameter, this.#makeState(parameter));
      }
      for (const tensor of this.#tensors()) tensor.keep();
      return numSteps.keep();
    });
    try {
      for (const [parameter, state] of this.#state) {
        if (!state?.master) continue;
        const { master } = state;
        this.#part(parameter, (part) => kernels.cast(part, master));
        if (!shards) parameter.master = master;
      }
      if (!readStored) return;
      for (const { master, stored, begin, end, first } of this.#rounded()) {
        tidy(() => rowsOf(master, begin - first, end - first).write(stored.readSync(begin, end)));
      }
    } catch (error) {
      this.dispose();
      throw error;
    }
  }

  get shards(): Shards | null {
    return this.options.shards;
  }

  #makeState(parameter: Parameter): AdamWState | null {
    if (!this.shards) return makeState(parameter, this.options);
    const { begin, end } = this.shards.range(parameter.size);
    return begin === end ? null : makeState(parameter, this.options, end - begin);
  }

  /** Calls fn with what this optimizer updates of a tensor of a parameter's size. */
  #part(tensor: Tensor, fn: (part: Tensor) => void): void {
    if (this.shards) this.shards.of(tensor, fn);
    else fn(tensor);
  }

  *#tensors(): Generator<Tensor> {
    for (const state of this.#state.values()) {
      for (const tensor of Object.values(state ?? {}) as (Tensor | null)[]) if (tensor) yield tensor;
    }
  }

  /** Reads the values in the model's files, before rounding, into the master copies. Call it before the first step. */
  async readStored(): Promise<void> {
    for (const { master, stored, begin, end, first } of this.#rounded()) {
      const values = await stored.read(begin, end);
      tidy(() => rowsOf(master, begin - first, end - first).write(values));
      await master.device.synchronize(); // so that only one piece waits for the device at a time
    }
  }

  /** Pieces of all parameters that loading rounded and that have a master copy, which begins with element `first`. */
  *#rounded(): Generator<{ master: Tensor; stored: StoredValues; begin: number; end: number; first: number }> {
    for (const [{ stored, size }, state] of this.#state) {
      if (!state?.master || !stored) continue;
      const { begin: first, end: last } = this.shards?.range(size) ?? { begin: 0, end: size };
      for (let begin = first; begin < last; begin += PIECE) {
        yield { master: state.master, stored, begin, end: Math.min(begin + PIECE, last), first };
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
    if (state === undefined)
      throw new Error(`AdamW: ${parameter} is not one of its parameters, or the optimizer was disposed`);
    if (!parameter.grad) throw new Error(`AdamW: ${parameter} has no gradient`);
    if (state === null) return;
    const { master, ...states } = state;
    const { beta1, beta2, eps, seed } = this.options;
    const weightDecay = parameter.shape.length >= 2 ? this.options.weightDecay : 0;
    const op = this.#indices.get(parameter)!;
    const first = this.shards?.range(parameter.size).begin ?? 0;
    const settings = { learningRate, beta1, beta2, eps, weightDecay, seed, op, first };
    const { grad } = parameter;
    this.#part(parameter, (part) =>
      this.#part(grad, (gradient) =>
        kernels.adamw(part, master, gradient, states, gradientFactor, this.#numSteps, settings),
      ),
    );
  }

  /** Whether its ranks have a master copy of a parameter. */
  hasMaster({ dtype }: Parameter): boolean {
    return this.options.masterWeights && dtype === 'bfloat16';
  }

  /**
   * The whole master copy of a parameter, of which this rank has a part; the caller disposes it.
   * @param gather puts in the other ranks' parts
   */
  wholeMaster(parameter: Parameter, gather: (whole: Tensor) => void): Tensor {
    const { shape, device } = parameter;
    const whole = empty(shape, { dtype: 'float32', device, category: 'workspace' });
    const master = this.#state.get(parameter)?.master;
    if (master) this.#part(whole, (part) => kernels.cast(master, part));
    gather(whole);
    return whole.keep();
  }

  like(parameters: readonly Parameter[]): AdamW {
    return new AdamW(parameters, { ...this.options, readStored: false });
  }

  /** All tensors of the optimizer by name, for checkpoints. */
  *state(): Generator<[string, Tensor]> {
    for (const { name, tensor } of this.stateParts()) yield [name, tensor];
  }

  /** The same, with what each is a part of. */
  *stateParts(): Generator<StatePart> {
    yield { name: 'numSteps', tensor: this.#numSteps, of: null, unit: 1 };
    for (const [i, parameter] of this.parameters.entries()) {
      const name = parameter.name ?? String(i);
      for (const [part, tensor] of Object.entries(this.#state.get(parameter) ?? {}) as [string, Tensor | null][]) {
        if (tensor) yield { name: `${name}.${part}`, tensor, of: parameter.size, unit: unitOf(part) };
      }
    }
  }

  dispose(): void {
    this.#numSteps.dispose();
    for (const tensor of this.#tensors()) tensor.dispose();
    for (const [parameter, state] of this.#state) {
      if (parameter.master === state?.master) parameter.master = null;
    }
    this.#state.clear();
  }
  [Symbol.dispose](): void {
    this.dispose();
  }
}

const rowsOf = (tensor: Tensor, begin: number, end: number): Tensor => tensor.reshape([tensor.size]).rows(begin, end);

/** With 1, the bias correction 1 / (1 − beta^step) would be infinite. */
function requireBeta(argument: string, value: number): void {
  if (!(value >= 0 && value < 1)) throw new RangeError(`AdamW: ${argument} must be a number in [0, 1), got ${value}`);
}
