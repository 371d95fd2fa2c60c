// The decoder that most families share, read from their common fields. A family overrides what differs.
import type { DecoderConfig, LayerNorms, LayerSpec } from '../decoder_config.ts';
import type { Fields, HuggingFaceConfig } from '../fields.ts';
import { type RopeConfig, ropeConfig } from '../rope_config.ts';
import { quantizationOf } from './quantised.ts';

/** Norms before attention and before the MLP. */
const PRE_NORMS: LayerNorms = {
  attentionInput: 'input_layernorm',
  attentionOutput: null,
  mlpInput: 'post_attention_layernorm',
  mlpOutput: null,
};

/** Norms before and after attention and MLP. */
export const SANDWICH_NORMS: LayerNorms = {
  attentionInput: 'input_layernorm',
  attentionOutput: 'post_attention_layernorm',
  mlpInput: 'pre_feedforward_layernorm',
  mlpOutput: 'post_feedforward_layernorm',
};

/** Norms after attention and after the MLP. */
export const POST_NORMS: LayerNorms = {
  attentionInput: null,
  attentionOutput: 'post_attention_layernorm',
  mlpInput: null,
  mlpOutput: 'post_feedforward_layernorm',
};

/** Defaults of fields in which families differ. */
export interface Defaults {
  /** @default one per query head */
  keyValueHeads?: number;
  /** @default hidden_size / num_attention_heads */
  headSize?: number;
  /** @default false */
  tie?: boolean;
  /** @default 10000 */
  ropeTheta?: number;
  /** @default read from rope_parameters, or from rope_theta and rope_scaling */
  rope?: RopeConfig;
  /** @default 1e-6 */
  normEps?: number;
  /** Whether mlp_bias is read. @default false: it must be false */
  hasMlpBias?: boolean;
}

/** Far more than any model has. Each layer takes memory before a weight is read, and config.json may come from an untrusted source. */
const MAX_LAYERS = 10_000;

export interface PlainDecoder extends Omit<DecoderConfig, 'layers'> {
  numLayers: number;
  /** SiLU, rotary positions, norms before attention and MLP, no windows, no biases. */
  layer: LayerSpec;
}

export function plainDecoder(fields: Fields, source: HuggingFaceConfig, defaults: Defaults = {}): PlainDecoder {
  requireNoDropout(fields, 'attention_dropout', "dropout of attention's weights");
  if (!defaults.hasMlpBias) fields.only('mlp_bias', false);
  fields.count('pretraining_tp', 1); // splits products into partial sums (Megatron); only old versions of transformers read it
  const quantization = quantizationOf(fields);
  const hiddenSize = fields.count('hidden_size');
  const numLayers = fields.count('num_hidden_layers');
  if (numLayers > MAX_LAYERS) fields.fail('num_hidden_layers', numLayers, `at most ${MAX_LAYERS}`);
  const numHeads = fields.count('num_attention_heads');
  const oneEach = fields.isNull('num_key_value_heads') || !defaults.keyValueHeads;
  const numKeyValueHeads = fields.count('num_key_value_heads', oneEach ? numHeads : defaults.keyValueHeads);
  const oneShare = fields.isNull('head_dim') || !defaults.headSize;
  const headSize = fields.count('head_dim', oneShare ? hiddenSize / numHeads : defaults.headSize);
  if (numHeads % numKeyValueHeads !== 0) {
    fields.fail('num_key_value_heads', numKeyValueHeads, `a divisor of num_attention_heads ${numHeads}`);
  }
  if (headSize % 2 !== 0) fields.fail('head_dim', headSize, 'even');
  return {
    vocabSize: fields.count('vocab_size'),
    hiddenSize,
    numLayers,
    layer: {
      norms: PRE_NORMS,
      attention: {
        numHeads,
        numKeyValueHeads,
        headSize,
        isFused: false,
        areValuesKeys: false,
        hasValueNorm: false,
        bias: false,
        outputBias: false,
        qkNorm: null,
        qkNormNames: { q: 'q_norm', k: 'k_norm' },
        isNormedAfterRotation: false,
        rope: defaults.rope ?? ropeConfig(fields, defaults.ropeTheta),
        rotatedSize: headSize,
        isInterleaved: false,
        queryGrowth: null,
        window: 0,
        scale: 1 / Math.sqrt(headSize),
        softcap: 0,
      },
      mlp: {
        intermediateSize: fields.count('intermediate_size'),
        activation: 'silu',
        isFused: false,
        bias: defaults.hasMlpBias ? fields.boolean('mlp_bias', false) : false,
        experts: null,
      },
      residualScale: 1,
      hasScalar: false,
    },
    norm: { eps: fields.positive('rms_norm_eps', defaults.normEps ?? 1e-6), offset: 0 },
    embedding: { scale: 1, isScaleRounded: false },
    head: { scale: 1, softcap: 0 },
    isTextPart: false,
    tieWordEmbeddings: fields.boolean('tie_word_embeddings', defaults.tie ?? false),
    quantization,
    initializerRange: fields.number('initializer_range', 0.02),
    eosTokenIds: [fields.get('eos_token_id') ?? []].flat().filter((id): id is number => typeof id === 'number'),
    source,
  };
}

/** Refuses dropout that transformers applies in training. */
export function requireNoDropout(fields: Fields, name: string, what: string): void {
  const dropout = fields.number(name, 0);
  if (dropout === 0) return;
  const how = `ignoreFields: ['${name}'] (--ignore-fields ${name}) trains without it`;
  fields.fail(name, dropout, `0: ${what} is not supported; ${how}`);
}

/** The plain decoder with changes to attention: in all layers, and in single layers. */
export function withAttention(
  { numLayers, layer, ...decoder }: PlainDecoder,
  ofAll: Partial<LayerSpec['attention']>,
  ofLayer: (index: number) => Partial<LayerSpec['attention']> = () => ({}),
): DecoderConfig {
  const attention = { ...layer.attention, ...ofAll };
  const layers = Array.from({ length: numLayers }, (_, index) => ({
    ...layer,
    attention: { ...attention, ...ofLayer(index) },
  }));
  return { ...decoder, layers };
}
