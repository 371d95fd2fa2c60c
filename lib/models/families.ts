// One small function a family, from config.json to the decoder's config. Defaults are those of HuggingFace transformers.
import { brief } from '../brief.ts';
import type { DecoderConfig } from './decoder_config.ts';
import type { Fields, HuggingFaceConfig } from './fields.ts';
import { isEmpty } from './inert_fields.ts';
import { ropeConfig } from './rope_config.ts';

/** What families share; each overrides what is its own. `defaults` are what a missing field stands for. */
function common(
  source: HuggingFaceConfig,
  fields: Fields,
  defaults: { keyValueHeads?: number; headSize?: number; tie?: boolean } = {},
): DecoderConfig {
  fields.only('attention_dropout', 0);
  fields.only('mlp_bias', false);
  fields.count('pretraining_tp', 1); // how Megatron's products were cut: the same sums in another order, read by old versions alone
  refuseQuantised(fields);
  const hiddenSize = fields.count('hidden_size');
  const numHeads = fields.count('num_attention_heads');
  const oneEach = fields.isNull('num_key_value_heads') || !defaults.keyValueHeads;
  const numKeyValueHeads = fields.count('num_key_value_heads', oneEach ? numHeads : defaults.keyValueHeads);
  const headSize = fields.count('head_dim', defaults.headSize ?? hiddenSize / numHeads);
  if (numHeads % numKeyValueHeads !== 0) {
    fields.fail('num_key_value_heads', numKeyValueHeads, `a divisor of num_attention_heads ${numHeads}`);
  }
  if (headSize % 2 !== 0) fields.fail('head_dim', headSize, 'even');
  const numLayers = fields.count('num_hidden_layers');
  return {
    vocabSize: fields.count('vocab_size'),
    hiddenSize,
    intermediateSize: fields.count('intermediate_size'),
    numLayers,
    numHeads,
    numKeyValueHeads,
    headSize,
    activation: 'silu',
    normEps: fields.positive('rms_norm_eps', 1e-6),
    normOffset: 0,
    postNorms: false,
    qkNorm: false,
    attentionBias: false,
    outputBias: false,
    attentionScale: 1 / Math.sqrt(headSize),
    attentionSoftcap: 0,
    finalSoftcap: 0,
    windows: new Array<number>(numLayers).fill(0),
    embeddingScale: 1,
    rope: ropeConfig(fields),
    tieWordEmbeddings: fields.boolean('tie_word_embeddings', defaults.tie ?? false),
    initializerRange: fields.number('initializer_range', 0.02),
    eosTokenIds: [fields.get('eos_token_id') ?? []].flat().filter((id): id is number => typeof id === 'number'),
    source,
  };
}

/** Llama 2, 3 and 3.x. */
export function llama(fields: Fields, source: HuggingFaceConfig): DecoderConfig {
  fields.only('hidden_act', 'silu', 'swish');
  onlyFullAttention(fields);
  const bias = fields.boolean('attention_bias', false);
  const config = { ...common(source, fields), attentionBias: bias, outputBias: bias };
  return config;
}

export function mistral(fields: Fields, source: HuggingFaceConfig): DecoderConfig {
  fields.only('hidden_act', 'silu', 'swish');
  const config = common(source, fields, { keyValueHeads: 8 });
  fields.only('attention_bias', false);
  config.windows = layerWindows(fields, config.numLayers, slidingWindow(fields), () => true);
  return config;
}

/** Qwen2 and Qwen2.5. */
export function qwen2(fields: Fields, source: HuggingFaceConfig): DecoderConfig {
  fields.only('hidden_act', 'silu', 'swish');
  fields.only('use_mrope', false);
  fields.get('attention_bias'); // transformers does not read it: queries, keys and values have a bias, the output has none
  fields.get('dual_chunk_attention_config'); // of vLLM, for sequences longer than the model was trained on
  const config = { ...common(source, fields, { keyValueHeads: 32 }), attentionBias: true };
  config.windows = qwenWindows(fields, config.numLayers);
  return config;
}

export function qwen3(fields: Fields, source: HuggingFaceConfig): DecoderConfig {
  fields.only('hidden_act', 'silu', 'swish');
  const bias = fields.boolean('attention_bias', false);
  const config = {
    ...common(source, fields, { keyValueHeads: 32, headSize: 128 }),
    qkNorm: true,
    attentionBias: bias,
    outputBias: bias,
  };
  config.windows = qwenWindows(fields, config.numLayers);
  return config;
}

export function gemma2(fields: Fields, source: HuggingFaceConfig): DecoderConfig {
  fields.only('hidden_activation', 'gelu_pytorch_tanh');
  fields.get('hidden_act'); // written beside hidden_activation, which is the one in use
  fields.get('sliding_window_size'); // beside sliding_window
  fields.only('use_bidirectional_attention', false);
  const config = common(source, fields, { keyValueHeads: 4, headSize: 256, tie: true });
  const bias = fields.boolean('attention_bias', false);
  const softcap = (name: string, fallback: number) => (fields.isNull(name) ? 0 : fields.positive(name, fallback));
  Object.assign(config, {
    activation: 'geluTanh',
    normOffset: 1,
    postNorms: true,
    attentionBias: bias,
    outputBias: bias,
    attentionScale: 1 / Math.sqrt(fields.positive('query_pre_attn_scalar', 256)),
    attentionSoftcap: softcap('attn_logit_softcapping', 50),
    finalSoftcap: softcap('final_logit_softcapping', 30),
    embeddingScale: Math.sqrt(config.hiddenSize),
    windows: layerWindows(fields, config.numLayers, slidingWindow(fields), (layer) => layer % 2 === 0),
  } satisfies Partial<DecoderConfig>);
  return config;
}

/** No layer of a llama has a window, and a config that says otherwise is of another model. */
function onlyFullAttention(fields: Fields): void {
  const types = fields.get('layer_types') ?? [];
  const isFull = Array.isArray(types) && types.every((type) => type === 'full_attention');
  if (!isFull) fields.fail('layer_types', types, 'full_attention for every layer');
  const isUsed = fields.boolean('use_sliding_window', true);
  const window = fields.get('sliding_window');
  if (isUsed && window !== undefined) fields.fail('sliding_window', window, 'absent, or use_sliding_window false');
}

/** Which fields say that weights are quantised. */
const QUANTISED = ['quantization_config', 'quantization', 'compression_config'];

function refuseQuantised(fields: Fields): void {
  for (const name of QUANTISED) {
    const value = fields.object(name);
    const { quant_method: method = 'unknown method', bits, load_in_4bit: in4, load_in_8bit: in8 } = value;
    if (Object.keys(value).length === 0 || (in4 === false && in8 === false && !bits)) continue;
    const width = (bits ?? (in4 ? 4 : in8 ? 8 : undefined)) as number | undefined;
    const what = brief(method).replaceAll('"', '') + (width === undefined ? '' : `, ${brief(width)} bits`);
    fields.fail(
      name,
      value,
      `absent: the weights are quantised (${what}), which is not read; take the model that they were made from, or, where they were ` +
        `dequantised since, ignoreFields: ['${name}'] (--ignore-fields ${name})`,
    );
  }
}

/** The first max_window_layers layers see everything. */
function qwenWindows(fields: Fields, numLayers: number): number[] {
  const isUsed = fields.boolean('use_sliding_window', false);
  const fullLayers = fields.number('max_window_layers', 28);
  const window = slidingWindow(fields);
  return layerWindows(fields, numLayers, isUsed ? window : 0, (layer) => layer >= fullLayers);
}

/** 0: none. */
function slidingWindow(fields: Fields): number {
  return fields.isNull('sliding_window') ? 0 : fields.count('sliding_window', 4096);
}

/** layer_types says it for each layer; without it `isSliding` does. */
function layerWindows(
  fields: Fields,
  numLayers: number,
  window: number,
  isSliding: (layer: number) => boolean,
): number[] {
  const types = fields.get('layer_types');
  if (types === undefined || isEmpty(types))
    return Array.from({ length: numLayers }, (_, layer) => (isSliding(layer) ? window : 0));
  if (!Array.isArray(types) || types.length !== numLayers) fields.fail('layer_types', types, `a list of ${numLayers}`);
  return (types as unknown[]).map((type) => {
    if (type === 'full_attention') return 0;
    if (type !== 'sliding_attention') fields.fail('layer_types', type, 'full_attention or sliding_attention');
    if (window === 0) fields.fail('layer_types', type, 'full_attention where sliding windows are off');
    return window;
  });
}
