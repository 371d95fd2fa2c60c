// The config of the one decoder, and the families that a HuggingFace config.json may be of.
import { briefName } from '../brief.ts';
import type { Activation } from '../ops/glu.ts';
import { gemma2, llama, mistral, qwen2, qwen3 } from './families.ts';
import { Fields, type HuggingFaceConfig } from './fields.ts';
import type { RopeConfig } from './rope_config.ts';

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
  /** Added to every norm's weight: 1 for checkpoints that store `weight - 1`. */
  normOffset: number;
  /** Whether attention's and the MLP's outputs are normalised too, before they are added. */
  postNorms: boolean;
  /** Whether every head of the queries and keys is normalised, before its rotation. */
  qkNorm: boolean;
  /** Whether the projections of queries, keys and values have a bias. */
  attentionBias: boolean;
  /** Whether attention's output projection has a bias. */
  outputBias: boolean;
  /** Factor on q·k. */
  attentionScale: number;
  /** c * tanh(score / c) on attention's scores; 0: none. */
  attentionSoftcap: number;
  /** The same on the logits. */
  finalSoftcap: number;
  /** For each layer, how many positions a query sees, its own included; 0: all before it. */
  windows: number[];
  /** Factor on the embedding's output, rounded to the model's dtype. */
  embeddingScale: number;
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

const families: Record<string, (fields: Fields, source: HuggingFaceConfig) => DecoderConfig> = {
  llama,
  mistral,
  qwen2,
  qwen3,
  gemma2,
};

/**
 * Reads a parsed config.json. Throws a RangeError that names the field and what is supported.
 * @param options.ignoreFields fields that are passed over, though nobody knows whether they change the numbers; those within rope_scaling
 *   too
 */
export function decoderConfig(
  source: HuggingFaceConfig,
  { ignoreFields = [] }: { ignoreFields?: readonly string[] } = {},
): DecoderConfig {
  const type = source.model_type;
  const family = typeof type === 'string' && Object.hasOwn(families, type) ? families[type] : undefined;
  if (!family) {
    throw new RangeError(
      `config.json: model_type '${briefName(String(type))}' is none of ${Object.keys(families).join(', ')}`,
    );
  }
  const fields = new Fields(source, 'config.json', ignoreFields);
  const config = family(fields, source);
  fields.finish();
  return config;
}
