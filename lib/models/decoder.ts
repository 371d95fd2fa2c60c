// The decoder-only transformer of the Llama family: RMSNorm, rotary positions, grouped-query attention, gated MLP, tied or own head.
import { type Device, type DeviceName, getDevice } from '../device.ts';
import type { Dtype } from '../dtype.ts';
import { kernels } from '../native.ts';
import { attention } from '../ops/attention.ts';
import { chunkedCrossEntropy } from '../ops/chunked_cross_entropy.ts';
import { chunkedMlp } from '../ops/chunked_mlp.ts';
import type { CrossEntropyOptions, CrossEntropyResult } from '../ops/cross_entropy.ts';
import { add } from '../ops/elementwise.ts';
import { embedding } from '../ops/embedding.ts';
import { linear } from '../ops/linear.ts';
import { rmsNorm } from '../ops/rms_norm.ts';
import { rope } from '../ops/rope.ts';
import { recompute } from '../region.ts';
import { tidy } from '../scope.ts';
import { emptyGroup, type Tensor, tensor } from '../tensor.ts';
import type { DecoderConfig } from './config.ts';
import { Module } from './module.ts';
import { inverseFrequencies } from './rope_frequencies.ts';

/** How a step trades memory for operations. Numbers are the same under every policy, to rounding. */
export interface StepPolicy {
  /** Rows of a chunk of the MLP; N or more: not chunked. */
  mlpChunkSize: number;
  /** Rows of a chunk of the head and loss. */
  lossChunkSize: number;
  /** What the MLP keeps for its backward. */
  mlpSave: 'input' | 'gateUp';
  /**
   * 'none': everything that the backward needs is saved.
   * 'attention': a layer keeps its input and attention's output; the rest is computed again.
   * 'layer': a layer keeps its input alone.
   */
  recompute: 'none' | 'attention' | 'layer';
}

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
}

interface Layer {
  inputNorm: Tensor;
  q: Tensor;
  k: Tensor;
  v: Tensor;
  o: Tensor;
  postAttentionNorm: Tensor;
  gate: Tensor;
  up: Tensor;
  down: Tensor;
}

export class Decoder extends Module {
  readonly config: DecoderConfig;
  readonly device: Device;
  readonly dtype: Dtype;
  readonly #named = new Map<string, Tensor>();
  readonly #embed: Tensor;
  readonly #layers: Layer[] = [];
  readonly #norm: Tensor;
  readonly #head: Tensor;
  readonly #inverseFrequencies: Tensor;

  /** Parameters are garbage until `initialize` or `loadWeights`. */
  constructor(config: DecoderConfig, options: { device?: Device | DeviceName; dtype?: Dtype } = {}) {
    super();
    this.config = config;
    this.device = getDevice(options.device ?? 'cpu');
    this.dtype = options.dtype ?? 'float32';
    const { vocabSize: V, hiddenSize: C, intermediateSize: F, numHeads: H, numKeyValueHeads: G, headSize: D } = config;
    const one = (name: string, ...shape: number[]) => this.#group([name], [shape])[0]!;
    this.#embed = one('model.embed_tokens.weight', V, C);
    for (let l = 0; l < config.numLayers; l++) {
      const path = `model.layers.${l}`;
      const inputNorm = one(`${path}.input_layernorm.weight`, C);
      const [q, k, v] = this.#group(
        ['q', 'k', 'v'].map((name) => `${path}.self_attn.${name}_proj.weight`),
        [
          [H * D, C],
          [G * D, C],
          [G * D, C],
        ],
      );
      const o = one(`${path}.self_attn.o_proj.weight`, C, H * D);
      const postAttentionNorm = one(`${path}.post_attention_layernorm.weight`, C);
      const [gate, up] = this.#group(
        ['gate', 'up'].map((name) => `${path}.mlp.${name}_proj.weight`),
        [
          [F, C],
          [F, C],
        ],
      );
      const down = one(`${path}.mlp.down_proj.weight`, C, F);
      this.#layers.push({ inputNorm, q: q!, k: k!, v: v!, o, postAttentionNorm, gate: gate!, up: up!, down });
    }
    this.#norm = one('model.norm.weight', C);
    this.#head = config.tieWordEmbeddings ? this.#embed : one('lm_head.weight', V, C);
    this.#inverseFrequencies = tensor(inverseFrequencies(config.rope, D), {
      device: this.device,
      category: 'parameter',
    }).keep();
  }

  namedParameters(): ReadonlyMap<string, Tensor> {
    return this.#named;
  }

  /** Random weights (normal, `initializerRange`), norms 1. The same seed gives the same weights on every device. */
  initialize(seed: number): this {
    this.parameters().forEach((parameter, i) => {
      if (parameter.shape.length === 1) kernels.fill(parameter, 1);
      else kernels.random_normal(parameter, 0, this.config.initializerRange, seed, i, 0);
    });
    return this;
  }

  /** Mean cross-entropy of the targets, or what the options say; a scalar with a gradient. */
  loss(batch: Batch, policy: StepPolicy, options: CrossEntropyOptions = {}): CrossEntropyResult {
    return tidy(() =>
      chunkedCrossEntropy(this.hidden(batch, policy), this.#head, batch.targets, {
        chunkSize: policy.lossChunkSize,
        ...options,
      }),
    );
  }

  /** What the head reads: (N,C), after the last norm. */
  hidden(batch: Batch, policy: StepPolicy): Tensor {
    const N = batch.inputs.size;
    if (N % batch.T !== 0) throw new RangeError(`Decoder: inputs are ${N} tokens, not a multiple of T ${batch.T}`);
    return tidy(() => {
      let x = embedding(this.#embed, batch.inputs);
      for (const layer of this.#layers) {
        const before = x;
        const run = (x: Tensor) => this.#layer(layer, x, batch, policy);
        x =
          policy.recompute === 'none'
            ? run(x)
            : recompute(run, [x], { keep: policy.recompute === 'attention' ? ['attention'] : [] });
        before.dispose(); // what the backward needs of it, the tape holds
      }
      return rmsNorm(x, this.#norm, { eps: this.config.normEps });
    });
  }

  /** (N,V) logits, whole: for short inputs. */
  logits(batch: Batch, policy: StepPolicy): Tensor {
    return tidy(() => linear(this.hidden(batch, policy), this.#head));
  }

  override dispose(): void {
    super.dispose();
    this.#inverseFrequencies.dispose();
  }

  #layer(layer: Layer, x: Tensor, batch: Batch, policy: StepPolicy): Tensor {
    const { normEps: eps, activation } = this.config;
    const h = tidy(() => add(x, this.#attention(layer, rmsNorm(x, layer.inputNorm, { eps }), batch)));
    return tidy(() => {
      const mlp = chunkedMlp(rmsNorm(h, layer.postAttentionNorm, { eps }), layer.gate, layer.up, layer.down, {
        activation,
        chunkSize: policy.mlpChunkSize,
        save: policy.mlpSave,
      });
      return add(h, mlp);
    });
  }

  #attention(layer: Layer, x: Tensor, batch: Batch): Tensor {
    const { T, documentStart = null } = batch;
    const frequencies = { inverseFrequencies: this.#inverseFrequencies };
    const out = tidy(() => {
      const q = tidy(() => rope(linear(x, layer.q), frequencies, T, documentStart));
      const k = tidy(() => rope(linear(x, layer.k), frequencies, T, documentStart));
      const v = linear(x, layer.v);
      return attention(q, k, v, { T, headSize: this.config.headSize, documentStart });
    });
    return linear(out, layer.o);
  }

  /** Parameters that lie side by side in memory. */
  #group(names: string[], shapes: number[][]): Tensor[] {
    const group = emptyGroup(shapes, { dtype: this.dtype, device: this.device, category: 'parameter' });
    group.forEach((parameter, i) => {
      this.#named.set(names[i]!, parameter.asParameter(names[i]!));
      if (group.length > 1) parameter.group = group;
    });
    return group;
  }
}
