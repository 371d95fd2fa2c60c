// From a HuggingFace config.json to the decoder's config: one small function for each family. A field that would change the numbers and
// is not supported is an error that names it, never ignored.
import type { Activation } from '../ops/glu.ts';

/** How positions turn queries and keys; angles are formed in f64. */
export type RopeConfig =
  | { type: 'default'; theta: number }
  | { type: 'linear'; theta: number; factor: number }
  | {
      type: 'llama3';
      theta: number;
      factor: number;
      lowFrequencyFactor: number;
      highFrequencyFactor: number;
      originalMaxPositions: number;
    };

/** One decoder for all families: what differs between them is a field here. */
export interface DecoderConfig {
  vocabSize: number;
  hiddenSize: number;
  intermediateSize: number;
  numLayers: number;
  numHeads: number;
  numKeyValueHeads: number;
  headSize: number;
  activation: Activation;
  normEps: number;
  rope: RopeConfig;
  /** Whether the head is the embedding. */
  tieWordEmbeddings: boolean;
  /** Standard deviation of new weights. */
  initializerRange: number;
  /** Ids that end a document, from config.json; the first is written after each document of training text. */
  eosTokenIds: number[];
  /** The config.json that this was read from, written beside saved weights. */
  source: HuggingFaceConfig;
}

/** A parsed config.json. */
export type HuggingFaceConfig = Record<string, unknown>;

const families: Record<string, (source: HuggingFaceConfig) => DecoderConfig> = { llama };

/** Reads a parsed config.json. Throws a RangeError that names the field and what is supported. */
export function decoderConfig(source: HuggingFaceConfig): DecoderConfig {
  const type = source.model_type;
  const family = typeof type === 'string' ? families[type] : undefined;
  if (!family) throw new RangeError(`config.json: model_type '${type}' is none of ${Object.keys(families).join(', ')}`);
  return family(source);
}

/** Llama 2, 3 and 3.x. */
function llama(source: HuggingFaceConfig): DecoderConfig {
  requireValue(source, 'attention_bias', [false, undefined]);
  requireValue(source, 'mlp_bias', [false, undefined]);
  requireValue(source, 'attention_dropout', [0, undefined]);
  requireValue(source, 'hidden_act', ['silu', undefined]);
  requireValue(source, 'pretraining_tp', [1, undefined, null]);
  requireValue(source, 'sliding_window', [undefined, null]);
  requireValue(source, 'quantization_config', [undefined, null]);
  requireValue(source, 'partial_rotary_factor', [1, undefined, null]);
  const hiddenSize = count(source, 'hidden_size');
  const numHeads = count(source, 'num_attention_heads');
  const numKeyValueHeads = count(source, 'num_key_value_heads', numHeads);
  const headSize = count(source, 'head_dim', hiddenSize / numHeads);
  if (numHeads % numKeyValueHeads !== 0) {
    throw new RangeError(
      `config.json: num_attention_heads ${numHeads} is not a multiple of num_key_value_heads ${numKeyValueHeads}`,
    );
  }
  if (headSize % 2 !== 0) throw new RangeError(`config.json: head_dim ${headSize} must be even`);
  return {
    vocabSize: count(source, 'vocab_size'),
    hiddenSize,
    intermediateSize: count(source, 'intermediate_size'),
    numLayers: count(source, 'num_hidden_layers'),
    numHeads,
    numKeyValueHeads,
    headSize,
    activation: 'silu',
    normEps: number(source, 'rms_norm_eps', 1e-6),
    rope: ropeConfig(source),
    tieWordEmbeddings: source.tie_word_embeddings === true,
    initializerRange: number(source, 'initializer_range', 0.02),
    eosTokenIds: [source.eos_token_id ?? []].flat().filter((id): id is number => typeof id === 'number'),
    source,
  };
}

/** Both spellings: rope_parameters, and rope_theta beside rope_scaling. */
function ropeConfig(source: HuggingFaceConfig): RopeConfig {
  const parameters = {
    ...((source.rope_scaling ?? {}) as HuggingFaceConfig),
    ...((source.rope_parameters ?? {}) as HuggingFaceConfig),
  };
  const theta = number(parameters, 'rope_theta', number(source, 'rope_theta', 10000));
  const type = parameters.rope_type ?? parameters.type ?? 'default';
  switch (type) {
    case 'default':
      return { type: 'default', theta };
    case 'linear':
      return { type: 'linear', theta, factor: number(parameters, 'factor') };
    case 'llama3':
      return {
        type: 'llama3',
        theta,
        factor: number(parameters, 'factor'),
        lowFrequencyFactor: number(parameters, 'low_freq_factor'),
        highFrequencyFactor: number(parameters, 'high_freq_factor'),
        originalMaxPositions: number(parameters, 'original_max_position_embeddings'),
      };
    default:
      throw new RangeError(`config.json: rope_type '${type}' is none of default, linear, llama3`);
  }
}

function requireValue(source: HuggingFaceConfig, field: string, supported: readonly unknown[]): void {
  if (!supported.includes(source[field])) {
    throw new RangeError(
      `config.json: ${field} ${JSON.stringify(source[field])} is not supported, only ${JSON.stringify(supported[0])}`,
    );
  }
}

function number(source: HuggingFaceConfig, field: string, fallback?: number): number {
  const value = source[field] ?? fallback;
  if (typeof value !== 'number' || !Number.isFinite(value)) {
    throw new RangeError(`config.json: ${field} must be a number, got ${JSON.stringify(value)}`);
  }
  return value;
}

function count(source: HuggingFaceConfig, field: string, fallback?: number): number {
  const value = number(source, field, fallback);
  if (!Number.isInteger(value) || value < 1)
    throw new RangeError(`config.json: ${field} must be a positive integer, got ${value}`);
  return value;
}
