// The decoder-only transformer of the Llama family: RMSNorm, rotary positions, grouped-query attention, gated MLP, tied or own head.

import { recompute } from '../autograd/region.ts';
import { noGrad } from '../autograd/tape.ts';
import { attention } from '../ops/attention.ts';
import { cachedAttention } from '../ops/cached_attention.ts';
import { requireInteger } from '../ops/check.ts';
import { chunkedCrossEntropy } from '../ops/chunked_cross_entropy.ts';
import { chunkedMlp } from '../ops/chunked_mlp.ts';
import type { CrossEntropyOptions, CrossEntropyResult } from '../ops/cross_entropy.ts';
import type { DropoutMask } from '../ops/dropout.ts';
import { add, scale } from '../ops/elementwise.ts';
import { embedding } from '../ops/embedding.ts';
import { linear } from '../ops/linear.ts';
import { adaptedLinear, lowRankInput } from '../ops/low_rank.ts';
import { rmsNorm } from '../ops/rms_norm.ts';
import { type Rope, rope } from '../ops/rope.ts';
import { softcap } from '../ops/softcap.ts';
import { type Device, type DeviceName, getDevice } from '../runtime/device.ts';
import { type Dtype, type GradientDtype, gradientDtypeFor, toBfloat16, toFloat32 } from '../runtime/dtype.ts';
import { kernels } from '../runtime/native.ts';
import { tidy } from '../runtime/scope.ts';
import { emptyGroup, type Tensor, tensor } from '../runtime/tensor.ts';
import type { Adapter, Lora } from './adapter.ts';
import type { KeyValueCache } from './cache.ts';
import type { DecoderConfig } from './decoder_config.ts';
import { type Layer, type Layers, makeLayers, type Projection } from './layers.ts';
import { Module } from './module.ts';
import type { ModelOrigin } from './origin.ts';
import type { StepPolicy } from './policy.ts';
import { RopeTables } from './rope_tables.ts';

/** Token ids of B sequences of T, flat. */
export interface Batch {
  /** (N,) int32. */
  inputs: Tensor;
  /** (N,) int32: what follows each input; ignored rows hold the ignore index. */
  targets: Tensor;
  /** Length of one sequence. */
  T: number;
  /** (N,) int32: the row where each row's document begins; absent: each sequence is one document. */
  documentStart?: Tensor | null;
  /** Tokens of the longest sequence without its padding, which dynamic rope depends on. @default T */
  length?: number;
}

/** What a layer runs on: a batch, or the next tokens of a sequence whose keys and values are kept. */
interface Tokens extends Omit<Batch, 'targets'> {
  cache?: KeyValueCache;
}

export class Decoder extends Module {
  /** null: made here. */
  origin: ModelOrigin | null = null;
  /** Adapters; see lora.ts. */
  lora: Lora | null = null;
  /** What dropout draws by in the forward that runs; null: no dropout, as in validation. A training step sets it. */
  dropout: { seed: number; step: number } | null = null;
  readonly device: Device;
  readonly dtype: Dtype;
  /** What gradients are kept in; 'bfloat16' is for one micro-batch a step. */
  readonly gradientDtype: GradientDtype;
  readonly #named = new Map<string, Tensor>();
  readonly #layers: Layers;
  #head: Tensor;
  #config: DecoderConfig;
  readonly #ropeTables: RopeTables;

  /**
   * Parameters are garbage until `initialize` or `loadWeights`.
   * @param options.gradientDtype 'bfloat16' with dtype 'bfloat16': gradients take half the memory; see `Tensor.asParameter`. @default 'float32'
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
    this.#ropeTables = new RopeTables(config.rope, config.headSize, this.device);
    try {
      this.#layers = makeLayers(config, (names, shapes) => this.#group(names, shapes));
    } catch (error) {
      this.dispose();
      throw error;
    }
    this.#head = this.#layers.head ?? this.#layers.embed;
  }

  /** The model's own; adapters are in `lora`. */
  namedParameters(): ReadonlyMap<string, Tensor> {
    return this.#named;
  }

  override parameters(): Tensor[] {
    const adapters = [...(this.lora?.adapters.values() ?? [])].flatMap(({ a, b }) => [a, b]);
    return [...this.#named.values(), ...adapters];
  }

  get config(): DecoderConfig {
    return this.#config;
  }

  /** (V,C): what gives the logits; the embedding where they are tied. */
  get head(): Tensor {
    return this.#head;
  }

  /** Makes a head that is the embedding a parameter of its own, 'lm_head.weight', with the same values. */
  untieHead(): void {
    const { embed } = this.#layers;
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
    for (const { path, q, k, v, o, gate, up, down } of this.#layers.layers) {
      for (const projection of [q, k, v, o]) yield [projection.path, projection.weight];
      for (const [name, weight] of Object.entries({ gate, up, down })) yield [`${path}.mlp.${name}_proj`, weight];
    }
    yield ['lm_head', this.#head];
  }

  /** Random weights (normal, `initializerRange`), norms 1, biases 0. The same seed gives the same weights on every device. */
  initialize(seed: number): this {
    requireInteger('initialize', 'seed', seed);
    [...this.#named].forEach(([name, parameter], i) => {
      if (name.endsWith('.bias')) kernels.fill(parameter, 0);
      else if (parameter.shape.length === 1) kernels.fill(parameter, 1 - this.config.normOffset);
      else kernels.random_normal(parameter, 0, this.config.initializerRange, seed, i, 0);
    });
    return this;
  }

  /** Mean cross-entropy of the targets, or what the options say; a scalar with a gradient. */
  loss(batch: Batch, policy: StepPolicy, options: CrossEntropyOptions = {}): CrossEntropyResult {
    return tidy(() => {
      const hidden = this.hidden(batch, policy);
      const adapter = this.#adapter('lm_head');
      return chunkedCrossEntropy(hidden, this.#head, batch.targets, {
        chunkSize: policy.lossChunkSize,
        softcap: this.config.finalSoftcap,
        lowRank: adapter && { low: lowRankInput(hidden, adapter, this.#mask()), weight: adapter.b },
        ...options,
      });
    });
  }

  /** What the head reads: (N,C), after the last norm. */
  hidden(batch: Batch, policy: StepPolicy): Tensor {
    const N = batch.inputs.size;
    if (N % batch.T !== 0) throw new RangeError(`Decoder: inputs are ${N} tokens, not a multiple of T ${batch.T}`);
    const { postNorms } = this.config;
    const keep = policy.recompute === 'attention' ? ['attention', ...(postNorms ? ['chunkedMlp'] : [])] : [];
    return tidy(() => {
      let x = this.#embedded(batch.inputs);
      for (const layer of this.#layers.layers) {
        const before = x;
        const run = (x: Tensor) => this.#layer(layer, x, batch, policy);
        x = policy.recompute === 'none' ? run(x) : recompute(run, [x], { keep });
        before.dispose(); // what the backward needs of it, the tape holds
      }
      return this.#normalize(x, this.#layers.norm);
    });
  }

  /** (N,V) logits, whole: for short inputs. */
  logits(batch: Batch, policy: StepPolicy): Tensor {
    return tidy(() => this.#logits(this.hidden(batch, policy)));
  }

  #logits(hidden: Tensor): Tensor {
    const { finalSoftcap } = this.config;
    const logits = this.#linear(hidden, { path: 'lm_head', weight: this.#head, bias: null });
    return finalSoftcap ? softcap(logits, finalSoftcap) : logits;
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
        const tokens = { inputs, T: N, documentStart: tensor(starts, { device }), cache, length };
        const policy = { mlpChunkSize: N, lossChunkSize: N, mlpSave: 'input', recompute: 'none' } as const;
        let x = this.#embedded(tokens.inputs);
        for (const layer of this.#layers.layers) {
          const before = x;
          x = this.#layer(layer, x, tokens, policy);
          before.dispose();
        }
        return this.#logits(this.#normalize(x.rows(N - 1, N), this.#layers.norm));
      }),
    );
    cache.length += N;
    const values = await logits.toFloat32();
    logits.dispose();
    return values;
  }

  override dispose(): void {
    super.dispose();
    this.#ropeTables.dispose();
    this.origin?.close();
    this.lora?.close?.();
  }

  #embedded(ids: Tensor): Tensor {
    const { embeddingScale } = this.config;
    const x = embedding(this.#layers.embed, ids);
    if (embeddingScale === 1) return x;
    const scaled = scale(x, this.dtype === 'bfloat16' ? toFloat32(toBfloat16([embeddingScale]))[0]! : embeddingScale);
    x.dispose();
    return scaled;
  }

  #layer(layer: Layer, x: Tensor, batch: Tokens, policy: StepPolicy): Tensor {
    const h = tidy(() => {
      const out = this.#attention(layer, this.#normalize(x, layer.inputNorm), batch);
      return add(x, this.#normalize(out, layer.attentionPostNorm));
    });
    return tidy(() => {
      const adapterOf = (name: string) => this.#adapter(`${layer.path}.mlp.${name}_proj`);
      const mlp = chunkedMlp(this.#normalize(h, layer.mlpNorm), layer.gate, layer.up, layer.down, {
        activation: this.config.activation,
        chunkSize: policy.mlpChunkSize,
        save: policy.mlpSave,
        adapters: { gate: adapterOf('gate'), up: adapterOf('up'), down: adapterOf('down') },
        dropout: this.#mask(),
      });
      return add(h, this.#normalize(mlp, layer.mlpPostNorm));
    });
  }

  #attention(layer: Layer, x: Tensor, batch: Tokens): Tensor {
    const { headSize, attentionScale, attentionSoftcap } = this.config;
    const { T, documentStart = null, cache } = batch;
    const positions = this.#rope(batch);
    const rotated = (projection: Projection, norm: Tensor | null) =>
      tidy(() => rope(this.#normalize(this.#linear(x, projection), norm), positions, T, documentStart));
    const out = tidy(() => {
      const q = rotated(layer.q, layer.qNorm);
      const k = rotated(layer.k, layer.kNorm);
      const v = this.#linear(x, layer.v);
      const { window } = layer;
      const scores = { headSize, window, scale: attentionScale, softcap: attentionSoftcap };
      if (cache) {
        const kept = cache.append(layer.index, k, v);
        return cachedAttention(q, kept.k, kept.v, { ...scores, position: cache.length });
      }
      return attention(q, k, v, {
        T,
        headSize,
        documentStart,
        window,
        scale: attentionScale,
        softcap: attentionSoftcap,
      });
    });
    return this.#linear(out, layer.o);
  }

  #linear(x: Tensor, { path, weight, bias }: Projection): Tensor {
    const adapter = this.#adapter(path);
    return adapter ? adaptedLinear(x, weight, bias, adapter, this.#mask()) : linear(x, weight, bias);
  }

  #adapter(path: string): Adapter | null {
    return this.lora?.adapters.get(path) ?? null;
  }

  #mask(): DropoutMask | null {
    const probability = this.lora?.layout.dropout ?? 0;
    return this.dropout && probability > 0 ? { probability, ...this.dropout } : null;
  }

  /** x itself where there is no norm. */
  #normalize(x: Tensor, weight: Tensor | null): Tensor {
    const { normEps: eps, normOffset: weightOffset } = this.config;
    return weight ? rmsNorm(x, weight, { eps, weightOffset }) : x;
  }

  #rope({ T, documentStart, cache, length = T }: Tokens): Rope {
    const { rope } = this.config;
    if (rope.type === 'dynamic' && documentStart && !cache && this.#ropeTables.dependsOn(T)) {
      throw new RangeError(
        `Decoder: dynamic rope beyond max_position_embeddings ${rope.maxPositions} needs one document a sequence, got documents in T ${T}`,
      );
    }
    return {
      inverseFrequencies: this.#ropeTables.of(length),
      scale: rope.type === 'yarn' ? rope.attentionFactor : 1,
    };
  }

  /** Parameters that lie side by side in memory. */
  #group(names: string[], shapes: number[][]): Tensor[] {
    const group = emptyGroup(shapes, { dtype: this.dtype, device: this.device, category: 'parameter' });
    const { gradientDtype } = this;
    group.forEach((parameter, i) => {
      this.#named.set(names[i]!, parameter.asParameter(names[i]!, { gradientDtype }));
      if (group.length > 1) parameter.group = group;
    });
    return group;
  }
}
