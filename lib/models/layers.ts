// The parameters of the decoder: which there are, what they are called, what lies side by side in memory.
import type { Tensor } from '../runtime/tensor.ts';
import type { DecoderConfig } from './decoder_config.ts';

/** A projection's name without '.weight', its weight and bias. */
export interface Projection {
  path: string;
  weight: Tensor;
  bias: Tensor | null;
}

export interface Layer {
  index: number;
  path: string;
  inputNorm: Tensor;
  q: Projection;
  k: Projection;
  v: Projection;
  o: Projection;
  /** Of each head of the queries and the keys. */
  qNorm: Tensor | null;
  kNorm: Tensor | null;
  /** Of attention's output. */
  attentionPostNorm: Tensor | null;
  mlpNorm: Tensor;
  gate: Tensor;
  up: Tensor;
  down: Tensor;
  /** Of the MLP's output. */
  mlpPostNorm: Tensor | null;
  window: number;
}

export interface Layers {
  embed: Tensor;
  layers: Layer[];
  /** After the last layer. */
  norm: Tensor;
  /** null: the embedding is the head. */
  head: Tensor | null;
}

/** Makes parameters of these names and shapes, one after another in memory. */
export type MakeGroup = (names: string[], shapes: number[][]) => Tensor[];

export function makeLayers(config: DecoderConfig, group: MakeGroup): Layers {
  const { vocabSize: V, hiddenSize: C, numLayers } = config;
  const one = (name: string, ...shape: number[]) => group([name], [shape])[0]!;
  return {
    embed: one('model.embed_tokens.weight', V, C),
    layers: Array.from({ length: numLayers }, (_, index) => makeLayer(config, index, group)),
    norm: one('model.norm.weight', C),
    head: config.tieWordEmbeddings ? null : one('lm_head.weight', V, C),
  };
}

function makeLayer(config: DecoderConfig, index: number, group: MakeGroup): Layer {
  const { hiddenSize: C, intermediateSize: F, numHeads: H, numKeyValueHeads: G, headSize: D } = config;
  const path = `model.layers.${index}`;
  const one = (name: string, ...shape: number[]) => group([`${path}.${name}`], [shape])[0]!;
  const norm = (name: string, size = C) => one(`${name}.weight`, size);
  const several = (names: string[], shapes: number[][]) =>
    group(
      names.map((name) => `${path}.${name}_proj.weight`),
      shapes,
    );
  const projection = (name: string, weight: Tensor, hasBias: boolean): Projection => ({
    path: `${path}.self_attn.${name}_proj`,
    weight,
    bias: hasBias ? one(`self_attn.${name}_proj.bias`, weight.shape[0]!) : null,
  });
  const inputNorm = norm('input_layernorm');
  const shapes = [
    [H * D, C],
    [G * D, C],
    [G * D, C],
  ];
  const [q, k, v] = several(['self_attn.q', 'self_attn.k', 'self_attn.v'], shapes) as [Tensor, Tensor, Tensor];
  const o = one('self_attn.o_proj.weight', C, H * D);
  const attention = {
    q: projection('q', q, config.attentionBias),
    k: projection('k', k, config.attentionBias),
    v: projection('v', v, config.attentionBias),
    o: projection('o', o, config.outputBias),
    qNorm: config.qkNorm ? norm('self_attn.q_norm', D) : null,
    kNorm: config.qkNorm ? norm('self_attn.k_norm', D) : null,
    window: config.windows[index]!,
  };
  const postAttentionNorm = norm('post_attention_layernorm');
  const norms = config.postNorms
    ? {
        attentionPostNorm: postAttentionNorm,
        mlpNorm: norm('pre_feedforward_layernorm'),
        mlpPostNorm: norm('post_feedforward_layernorm'),
      }
    : { attentionPostNorm: null, mlpNorm: postAttentionNorm, mlpPostNorm: null };
  const wide = [
    [F, C],
    [F, C],
  ];
  const [gate, up] = several(['mlp.gate', 'mlp.up'], wide) as [Tensor, Tensor];
  const down = one('mlp.down_proj.weight', C, F);
  return { index, path, inputNorm, ...attention, ...norms, gate, up, down };
}
