// The decoder-only transformer of the Llama family: RMSNorm, rotary positions, grouped-query attention, gated MLP, tied or own head.

import { Parameter } from '../autograd/parameter.ts';
import { recompute } from '../autograd/region.ts';
import { noGrad } from '../autograd/tape.ts';
import { requireInteger } from '../ops/check.ts';
import type { ChunkedCrossEntropyOptions } from '../ops/chunked_cross_entropy.ts';
import type { DropoutMask } from '../ops/dropout.ts';
import { scale } from '../ops/elementwise.ts';
import { embedding } from '../ops/embedding.ts';
import { lowRankInput } from '../ops/low_rank.ts';
import { softcap } from '../ops/softcap.ts';
import { type Device, type DeviceName, getDevice } from '../runtime/device.ts';
import { type Dtype, type GradientDtype, gradientDtypeFor, toBfloat16, toFloat32 } from '../runtime/dtype.ts';
import { kernels } from '../runtime/native.ts';
import { tidy } from '../runtime/scope.ts';
import { emptyGroup, type Tensor, tensor } from '../runtime/tensor.ts';
import type { Adapter, Lora } from './adapter.ts';
import type { Batch } from './batch.ts';
import type { Forward, Tokens } from './blocks/forward.ts';
import { Layer } from './blocks/layer.ts';
import { Norm } from './blocks/norm.ts';
import { type Maker, parameter } from './blocks/parameters.ts';
import { project } from './blocks/projection.ts';
import type { KeyValueCache } from './cache.ts';
import type { DecoderConfig } from './decoder_config.ts';
import { Module } from './module.ts';
import type { ModelOrigin } from './origin.ts';
import type { StepPolicy } from './policy.ts';
import type { RopeConfig } from './rope_config.ts';
import { RopeTables } from './rope_tables.ts';
import { segmentsOf } from './segments.ts';

/** What a forward depends on beside the batch and its policy. */
export interface ForwardOptions {
  /** What dropout draws by: the same numbers drop the same elements. @default null: no dropout, as in validation */
  dropout?: Omit<DropoutMask, 'probability'> | null;
}

const NO_ADAPTERS: ReadonlyMap<string, Adapter> = new Map();

export class Decoder extends Module {
  /** null: made here. */
  origin: ModelOrigin | null = null;
  /** Adapters; see lora.ts. */
  lora: Lora | null = null;
  readonly device: Device;
  readonly dtype: Dtype;
  /** What gradients are kept in; 'bfloat16' is for one micro-batch a step. */
  readonly gradientDtype: GradientDtype;
  readonly #named = new Map<string, Parameter>();
  readonly #embedding: Parameter;
  readonly #layers: readonly Layer[];
  /** After the last layer. */
  readonly #norm: Norm;
  #head: Parameter;
  #config: DecoderConfig;
  /** By what they are made from: layers may differ in it. */
  readonly #ropeTables = new Map<string, RopeTables>();

  /**
   * Parameters are garbage until `initialize` or `loadWeights`.
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
    const { vocabSize: V, hiddenSize: C, norm } = config;
    const maker: Maker = {
      hiddenSize: C,
      norm,
      group: (names, shapes) => this.#group(names, shapes),
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

  /** The model's own; adapters are in `lora`. */
  namedParameters(): ReadonlyMap<string, Parameter> {
    return this.#named;
  }

  override parameters(): Parameter[] {
    const adapters = [...(this.lora?.adapters.values() ?? [])].flatMap(({ a, b }) => [a, b]);
    return [...this.#named.values(), ...adapters];
  }

  get config(): DecoderConfig {
    return this.#config;
  }

  /** (V,C): what gives the logits; the embedding where they are tied. */
  get head(): Parameter {
    return this.#head;
  }

  /** Makes a head that is the embedding a parameter of its own, 'lm_head.weight', with the same values. */
  untieHead(): void {
    const embed = this.#embedding;
    if (this.#head !== embed) return;
    const [head] = this.#group(['lm_head.weight'], [[...embed.shape]]);
    kernels.cast(embed, head!);
    head!.requiresGrad = embed.requiresGrad;
    this.#head = head!;
    const source = { ...this.#config.source, tie_word_embeddings: false };
    this.#config = { ...this.#config, tieWordEmbeddings: false, source };
    head!.stored = embed.stored;
    const { origin } = this;
    const dtype = origin?.stored.get(embed.name!)?.dtype;
    if (!origin || !dtype) return;
    // Each under its own name: the one tensor may be stored as the head, and names without 'model.' are a base model's, which has no head.
    const stored = new Map([...origin.stored].map(([name, { dtype }]) => [name, { name, dtype }]));
    if (!stored.has('lm_head.weight')) stored.set('lm_head.weight', { name: 'lm_head.weight', dtype });
    this.origin = { ...origin, stored };
  }

  /** Every linear layer by its name without '.weight', the head last. */
  *projections(): Generator<[path: string, weight: Tensor]> {
    for (const { projections } of this.#layers) for (const { path, weight } of projections) yield [path, weight];
    yield ['lm_head', this.#head];
  }

  /** Random weights (normal, `initializerRange`), norms 1, biases 0. The same seed gives the same weights on every device. */
  initialize(seed: number): this {
    requireInteger('initialize', 'seed', seed);
    [...this.#named].forEach(([name, parameter], i) => {
      if (name.endsWith('.bias')) kernels.fill(parameter, 0);
      else if (parameter.shape.length === 1) kernels.fill(parameter, 1 - this.config.norm.offset);
      else kernels.random_normal(parameter, 0, this.config.initializerRange, seed, i, 0);
    });
    return this;
  }

  /** What the head reads: (N,C), after the last norm and times the head's factor. */
  hidden(batch: Batch, policy: StepPolicy, { dropout }: ForwardOptions = {}): Tensor {
    const N = batch.inputs.size;
    if (N % batch.T !== 0) throw new RangeError(`Decoder: inputs are ${N} tokens, not a multiple of T ${batch.T}`);
    return tidy(() => {
      let x = this.#embedded(batch.inputs);
      const forward = this.#forward(batch, policy, { dropout: this.#mask(dropout) });
      for (const layers of this.#segments(policy)) {
        const before = x;
        const run = (x: Tensor) => inTurn(layers, x, (layer, x) => layer.run(x, forward));
        x = layers.length > 1 ? recompute(run, [x]) : run(x);
        before.dispose(); // what the backward needs of it, the tape holds
      }
      return this.#last(x);
    });
  }

  /** How the head makes logits of `hidden`, beside its weight `head`: for ops that take chunks of it. */
  headOptions(
    hidden: Tensor,
    { dropout }: ForwardOptions = {},
  ): Pick<ChunkedCrossEntropyOptions, 'softcap' | 'lowRank'> {
    const adapter = this.#adapter('lm_head');
    return {
      softcap: this.config.head.softcap,
      lowRank: adapter && { low: lowRankInput(hidden, adapter, this.#mask(dropout)), weight: adapter.b },
    };
  }

  /** (N,V) logits, whole: for short inputs. */
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
   * Logits (V,) after the last of these tokens, which follow those that the cache holds. One call at a time.
   * @param ids at most what is left of the cache's capacity
   * @param options.length tokens of the whole text that these are a piece of: dynamic rope has the same frequencies for all pieces of a
   *   prompt, whatever they are. @default those in the cache and these
   */
  async decode(ids: Int32Array, cache: KeyValueCache, options: { length?: number } = {}): Promise<Float32Array> {
    const N = ids.length;
    if (N === 0) throw new RangeError('decode: there are no tokens');
    if (cache.length + N > cache.capacity) {
      throw new RangeError(
        `decode: ${cache.length} and ${N} tokens are over the cache's capacity of ${cache.capacity}`,
      );
    }
    const logits = noGrad(() =>
      tidy(() => {
        const { device } = this;
        const starts = new Int32Array(N).fill(-cache.length); // so that row n has position cache.length + n
        const inputs = tensor(ids, { device });
        const length = Math.max(cache.length + N, options.length ?? 0);
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
    const values = await logits.toFloat32();
    logits.dispose();
    return values;
  }

  override dispose(): void {
    super.dispose();
    for (const tables of this.#ropeTables.values()) tables.dispose();
    this.origin?.close();
    this.lora?.close?.();
  }

  /** What is computed again at once, in order: layers that keep their inputs are alone. */
  #segments(policy: StepPolicy): Layer[][] {
    let end = 0;
    return segmentsOf(this.#layers.length, policy).map((size) => {
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

  /** The product with the head is linear: a factor on its input is one on the logits, without another pass over them. */
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

  #mask(dropout: ForwardOptions['dropout']): DropoutMask | null {
    const probability = this.lora?.layout.dropout ?? 0;
    return dropout && probability > 0 ? { probability, ...dropout } : null;
  }

  #tablesOf(rope: RopeConfig, headSize: number): RopeTables {
    const key = JSON.stringify([rope, headSize]);
    const tables = this.#ropeTables.get(key) ?? new RopeTables(rope, headSize, this.device);
    this.#ropeTables.set(key, tables);
    return tables;
  }

  /** Parameters that lie side by side in memory. */
  #group(names: string[], shapes: number[][]): Parameter[] {
    const { dtype, device, gradientDtype } = this;
    const memory = emptyGroup(shapes, { dtype, device, category: 'parameter' });
    const group = memory.map((each, i) => new Parameter(each, { name: names[i], gradientDtype }));
    group.forEach((parameter, i) => {
      this.#named.set(names[i]!, parameter);
      if (group.length > 1) parameter.group = group;
    });
    return group;
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
