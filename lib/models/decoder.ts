// The decoder-only transformer of the Llama family: RMSNorm, rotary positions, grouped-query attention, gated MLP, a tied or separate head.

import type { Parameter } from '../autograd/parameter.ts';
import { recompute } from '../autograd/region.ts';
import { noGrad } from '../autograd/tape.ts';
import { requireInteger } from '../ops/check.ts';
import type { ChunkedCrossEntropyOptions } from '../ops/chunked_cross_entropy.ts';
import type { DropoutMask } from '../ops/dropout.ts';
import { scale } from '../ops/elementwise.ts';
import { embedding } from '../ops/embedding.ts';
import { lowRankInput } from '../ops/low_rank.ts';
import { QuantizedWeight, type Weight } from '../ops/quantized_weight.ts';
import { softcap } from '../ops/softcap.ts';
import { type Device, type DeviceName, getDevice } from '../runtime/device.ts';
import { type Dtype, type GradientDtype, gradientDtypeFor, toBfloat16, toFloat32 } from '../runtime/dtype.ts';
import { kernels } from '../runtime/native.ts';
import { tidy } from '../runtime/scope.ts';
import { empty, type Tensor, tensor } from '../runtime/tensor.ts';
import type { Adapter, Lora } from './adapter.ts';
import type { Batch } from './batch.ts';
import type { Forward, Tokens } from './blocks/forward.ts';
import { HEADS, Layer } from './blocks/layer.ts';
import { Norm } from './blocks/norm.ts';
import { type Constant, type Maker, parameter } from './blocks/parameters.ts';
import { project } from './blocks/projection.ts';
import type { KeyValueCache } from './cache.ts';
import type { DecoderConfig } from './decoder_config.ts';
import { Module } from './module.ts';
import { inputStores } from './offload.ts';
import type { ModelOrigin } from './origin.ts';
import type { StepPolicy } from './policy.ts';
import type { RopeConfig } from './rope_config.ts';
import { RopeTables } from './rope_tables.ts';
import { segmentsOf } from './segments.ts';
import { Weights } from './weights.ts';

/** Inputs of a forward besides the batch and its policy. */
export interface ForwardOptions {
  /** Seed and step of dropout: the same numbers drop the same elements. @default null: no dropout, as in validation */
  dropout?: Omit<DropoutMask, 'probability'> | null;
}

const NO_ADAPTERS: ReadonlyMap<string, Adapter> = new Map();

export class Decoder extends Module {
  /** The files of its weights; null if they were not loaded. */
  origin: ModelOrigin | null = null;
  /** Adapters; see lora.ts. */
  lora: Lora | null = null;
  readonly device: Device;
  readonly dtype: Dtype;
  /** Dtype of gradients. 'bfloat16' allows only one micro-batch per step. */
  readonly gradientDtype: GradientDtype;
  readonly #weights: Weights;
  readonly #embedding: Parameter;
  readonly #layers: readonly Layer[];
  /** Norm after the last layer. */
  readonly #norm: Norm;
  #head: Parameter;
  #config: DecoderConfig;
  readonly #constants = new Map<string, Constant>();
  /** Vectors of ones by their size. */
  readonly #ones = new Map<number, Tensor>();
  /** Tables by what they are made from, since layers may differ in it. */
  readonly #ropeTables = new Map<string, RopeTables>();

  /**
   * Weights are uninitialised until `initialize` or `loadWeights`. With `config.quantization` the projections are no parameters, and only
   * adapters can be trained.
   * @param options.gradientDtype 'bfloat16' with dtype 'bfloat16': gradients take half the memory; see `Parameter`. @default 'float32'
   */
  constructor(
    config: DecoderConfig,
    options: { device?: Device | DeviceName; dtype?: Dtype; gradientDtype?: GradientDtype } = {},
  ) {
    super();
    this.#config = config;
    this.device = getDevice(options.device ?? 'cpu');
    this.dtype = options.dtype ?? 'float32';
    this.gradientDtype = options.gradientDtype ?? 'float32';
    gradientDtypeFor('Decoder', this.dtype, this.gradientDtype);
    this.#weights = new Weights(this);
    const { vocabSize: V, hiddenSize: C, norm } = config;
    const maker: Maker = {
      hiddenSize: C,
      norm,
      group: (names, shapes) => this.#weights.group(names, shapes),
      weights: (names, shapes) =>
        config.quantization ? this.#weights.quantizedGroup(names, shapes) : this.#weights.group(names, shapes),
      constant: (name) => this.#constantOf(name),
      ones: (size) => this.#onesOf(size),
      ropeTables: (rope, headSize) => this.#tablesOf(rope, headSize),
    };
    try {
      this.#embedding = parameter(maker, 'model.embed_tokens.weight', V, C);
      this.#layers = config.layers.map((spec, index) => new Layer(spec, index, maker));
      this.#norm = new Norm('model.norm', C, maker);
      this.#head = config.tieWordEmbeddings ? this.#embedding : parameter(maker, 'lm_head.weight', V, C);
    } catch (error) {
      this.dispose();
      throw error;
    }
  }

  /** The model's own parameters; those of adapters are in `lora`. */
  namedParameters(): ReadonlyMap<string, Parameter> {
    return this.#weights.named;
  }

  /** Numbers that files store beside the parameters, as tensors of shape (1), and that no step changes. */
  constants(): ReadonlyMap<string, Constant> {
    return this.#constants;
  }

  override parameters(): Parameter[] {
    const adapters = [...(this.lora?.adapters.values() ?? [])].flatMap(({ a, b }) => [a, b]);
    return [...this.#weights.named.values(), ...adapters];
  }

  /** All weights, those in 4 bits too, in order. */
  weights(): Generator<[name: string, weight: Weight]> {
    return this.#weights.all();
  }

  override numParameters(): number {
    return super.numParameters() + this.#weights.numQuantized;
  }

  get config(): DecoderConfig {
    return this.#config;
  }

  /** (V,C): weight of the head; the embedding if they are tied. */
  get head(): Parameter {
    return this.#head;
  }

  /** Unties the head: it becomes a separate parameter, 'lm_head.weight', with the embedding's values. */
  untieHead(): void {
    const embed = this.#embedding;
    if (this.#head !== embed) return;
    const [head] = this.#weights.group(['lm_head.weight'], [embed.shape]);
    kernels.cast(embed, head!);
    head!.requiresGrad = embed.requiresGrad;
    this.#head = head!;
    const source = { ...this.#config.source, tie_word_embeddings: false };
    this.#config = { ...this.#config, tieWordEmbeddings: false, source };
    head!.stored = embed.stored;
    const { origin } = this;
    const dtype = origin?.stored.get(embed.name!)?.dtype;
    if (!origin || !dtype) return;
    // The file may hold the tied tensor under the head's name, and names without 'model.' belong to a base model without a head; so each
    // parameter is saved under its own name from now on.
    const stored = new Map([...origin.stored].map(([name, { dtype }]) => [name, { name: origin.nameOf(name), dtype }]));
    if (!stored.has('lm_head.weight')) stored.set('lm_head.weight', { name: origin.nameOf('lm_head.weight'), dtype });
    this.origin = { ...origin, stored };
  }

  /** All linear layers by their names without '.weight'; the head is last. */
  *projections(): Generator<[path: string, weight: Weight]> {
    for (const { projections } of this.#layers) for (const { path, weight } of projections) yield [path, weight];
    yield ['lm_head', this.#head];
  }

  /** Random weights (normal, `initializerRange`), norms 1, biases 0. The same seed gives the same weights on every device. */
  initialize(seed: number): this {
    requireInteger('initialize', 'seed', seed);
    const { dtype, device } = this;
    const random = (values: Tensor, i: number) =>
      kernels.random_normal(values, 0, this.config.initializerRange, seed, i, 0);
    [...this.weights()].forEach(([name, weight], i) => {
      if (weight instanceof QuantizedWeight) {
        using values = empty(weight.shape, { dtype, device, category: 'workspace' });
        random(values, i);
        weight.quantize(values);
      } else if (name.endsWith('.bias')) kernels.fill(weight, 0);
      else if (weight.shape.length === 1) kernels.fill(weight, 1 - this.config.norm.offset);
      else random(weight, i);
    });
    return this;
  }

  /**
   * Makes weights in 4 bits parameters again, of the values that they stand for, rounded once to the model's dtype. If memory runs out, the
   * model is unchanged.
   */
  dequantize(): void {
    this.#weights.dequantize();
    for (const { parts } of this.#layers) {
      for (const projection of parts) {
        const weight = this.#weights.named.get(`${projection.path}.weight`)!;
        if (this.lora && weight !== projection.weight) weight.requiresGrad = false;
        projection.weight = weight;
      }
    }
    this.#config = { ...this.#config, quantization: null };
  }

  /** The head's input (N,C): the last norm's output times the head's factor. */
  hidden(batch: Batch, policy: StepPolicy, { dropout }: ForwardOptions = {}): Tensor {
    const N = batch.inputs.size;
    if (N % batch.T !== 0) throw new RangeError(`Decoder: inputs has ${N} tokens, not a multiple of T ${batch.T}`);
    const { dtype, device } = this;
    const stores = inputStores(this.#config, policy, { N, dtype, device });
    return tidy(() => {
      let x = this.#embedded(batch.inputs);
      const forward = this.#forward(batch, policy, { dropout: this.#mask(dropout, batch) });
      for (const [i, layers] of this.#segments(policy).entries()) {
        const before = x;
        const store = stores?.[i] ?? null;
        const run = (x: Tensor) => inTurn(layers, x, (layer, x) => layer.run(x, forward));
        const kept = { keep: [HEADS], keepInside: policy.keepAttention ? ['attention'] : [] };
        x = layers.length > 1 ? recompute(run, [x], { ...kept, store }) : layers[0]!.run(x, forward, store);
        before.dispose(); // the tape has its own handle if the backward needs it
      }
      return this.#last(x);
    });
  }

  /** The head's options besides its weight `head`, for ops that compute its logits in chunks. */
  headOptions(
    hidden: Tensor,
    batch: Batch,
    { dropout }: ForwardOptions = {},
  ): Pick<ChunkedCrossEntropyOptions, 'softcap' | 'lowRank'> {
    const adapter = this.#adapter('lm_head');
    return {
      softcap: this.config.head.softcap,
      lowRank: adapter && { low: lowRankInput(hidden, adapter, this.#mask(dropout, batch)), weight: adapter.b },
    };
  }

  /** All logits (N,V); only for short inputs. */
  logits(batch: Batch, policy: StepPolicy): Tensor {
    return tidy(() => this.#logits(this.hidden(batch, policy)));
  }

  #logits(hidden: Tensor): Tensor {
    const { head } = this.config;
    const adapters = this.#adapters;
    const logits = project(hidden, { path: 'lm_head', weight: this.#head, bias: null }, { adapters, dropout: null });
    return head.softcap ? softcap(logits, head.softcap) : logits;
  }

  /**
   * Logits (V,) for the token after `ids`, which continue the tokens in the cache. One call at a time.
   * @param ids no more than the cache has room for
   * @param options.length length of the whole text, if `ids` is only a piece of it, so that dynamic rope and longrope have the same
   *   frequencies for all pieces of a prompt. @default the tokens in the cache plus `ids`
   */
  async decode(ids: Int32Array, cache: KeyValueCache, options: { length?: number } = {}): Promise<Float32Array> {
    const N = ids.length;
    if (N === 0) throw new RangeError('decode: ids is empty');
    if (cache.length + N > cache.capacity) {
      throw new RangeError(
        `decode: the cache holds ${cache.length} tokens, ${N} more exceed its capacity of ${cache.capacity}`,
      );
    }
    const length = Math.max(cache.length + N, options.length ?? 0);
    if (!this.continues(cache, length)) {
      throw new RangeError(
        `decode: longrope has other frequencies for a text of ${length} tokens than the cached keys have; empty the cache and decode the whole text`,
      );
    }
    const logits = noGrad(() =>
      tidy(() => {
        const { device } = this;
        const starts = new Int32Array(N).fill(-cache.length); // so that row n has position cache.length + n
        const inputs = tensor(ids, { device });
        const tokens = { inputs, T: N, documentStart: tensor(starts, { device }), length };
        const policy = { mlpChunkSize: N, lossChunkSize: N, mlpSave: 'input', recompute: 'none' } as const;
        const forward = this.#forward(tokens, policy, { cache });
        const embedded = this.#embedded(tokens.inputs);
        const x = inTurn(this.#layers, embedded, (layer, x) => layer.forward(x, forward));
        embedded.dispose();
        return this.#logits(this.#last(x.rows(N - 1, N)));
      }),
    );
    cache.length += N;
    cache.ropeLength = length;
    const values = await logits.toFloat32();
    logits.dispose();
    return values;
  }

  /** Whether the cached keys have the frequencies that longrope has for a text of `length` tokens; true without longrope. */
  continues(cache: KeyValueCache, length: number): boolean {
    if (cache.length === 0) return true;
    return this.#config.layers.every(({ attention: { rope } }) => {
      if (rope?.type !== 'longrope') return true;
      return cache.ropeLength > rope.originalMaxPositions === length > rope.originalMaxPositions;
    });
  }

  override dispose(): void {
    super.dispose();
    this.#weights.disposeQuantized();
    for (const tables of this.#ropeTables.values()) tables.dispose();
    for (const ones of this.#ones.values()) ones.dispose();
    this.origin?.close();
    this.lora?.close?.();
  }

  /** The layers in groups that are recomputed together, in order. */
  #segments(policy: StepPolicy): Layer[][] {
    let end = 0;
    return segmentsOf(this.#config, policy).map((size) => {
      end += size;
      return this.#layers.slice(end - size, end);
    });
  }

  #embedded(ids: Tensor): Tensor {
    const { scale: factor, isScaleRounded } = this.config.embedding;
    const x = embedding(this.#embedding, ids);
    if (factor === 1) return x;
    const isNarrow = isScaleRounded && this.dtype === 'bfloat16';
    const scaled = scale(x, isNarrow ? toFloat32(toBfloat16([factor]))[0]! : factor);
    x.dispose();
    return scaled;
  }

  /** Applies the head's factor to its input. The head is linear, so this scales the logits without another pass over them. */
  #last(x: Tensor): Tensor {
    const normalized = this.#norm.forward(x);
    const { scale: factor } = this.config.head;
    if (factor === 1) return normalized;
    const scaled = scale(normalized, factor);
    normalized.dispose();
    return scaled;
  }

  #forward(
    tokens: Tokens,
    policy: StepPolicy,
    { dropout = null, cache = null }: Partial<Pick<Forward, 'dropout' | 'cache'>>,
  ): Forward {
    return { tokens, policy, adapters: this.#adapters, dropout, cache };
  }

  get #adapters(): ReadonlyMap<string, Adapter> {
    return this.lora?.adapters ?? NO_ADAPTERS;
  }

  #adapter(path: string): Adapter | null {
    return this.#adapters.get(path) ?? null;
  }

  #mask(dropout: ForwardOptions['dropout'], { T, sequence }: Tokens): DropoutMask | null {
    const probability = this.lora?.layout.dropout ?? 0;
    if (!dropout || probability === 0) return null;
    const rows = sequence ? { T: sequence.givenT, begin: sequence.ranks.rank * T, count: T } : null;
    return { probability, ...dropout, rows };
  }

  #tablesOf(rope: RopeConfig, headSize: number): RopeTables {
    const key = JSON.stringify([rope, headSize]);
    const tables = this.#ropeTables.get(key) ?? new RopeTables(rope, headSize, this.device);
    this.#ropeTables.set(key, tables);
    return tables;
  }

  #constantOf(name: string): Constant {
    const constant = { value: 1 };
    this.#constants.set(name, constant);
    return constant;
  }

  #onesOf(size: number): Tensor {
    const { dtype, device } = this;
    const ones = this.#ones.get(size) ?? empty([size], { dtype, device, category: 'parameter' }).keep();
    kernels.fill(ones, 1);
    this.#ones.set(size, ones);
    return ones;
  }
}

/** The output of the last layer; those between are freed, but for what the tape holds of them. */
function inTurn(layers: readonly Layer[], input: Tensor, run: (layer: Layer, x: Tensor) => Tensor): Tensor {
  let x = input;
  for (const layer of layers) {
    const before = x;
    x = run(layer, x);
    if (before !== input) before.dispose();
  }
  return x;
}
