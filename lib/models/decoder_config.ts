// What a decoder is made of, whatever family it is of: sizes, and a specification of every layer.
import type { Activation } from '../ops/glu.ts';
import type { HuggingFaceConfig } from './fields.ts';
import type { RopeConfig } from './rope_config.ts';

/** One decoder for all families: a family's config.json becomes this, and nothing else of the family is needed. */
export interface DecoderConfig {
  vocabSize: number;
  hiddenSize: number;
  layers: readonly LayerSpec[];
  /** Of every norm. */
  norm: NormSpec;
  embedding: EmbeddingSpec;
  head: HeadSpec;
  /** Whether the head is the embedding. */
  tieWordEmbeddings: boolean;
  /** Standard deviation of new weights. */
  initializerRange: number;
  /** Ids that end a document, from config.json; the first is written after each document of training text. */
  eosTokenIds: number[];
  /** The config.json that this was read from, written beside saved weights. */
  source: HuggingFaceConfig;
}

/** h = x + s · n(attention(n(x))), then h + s · n(mlp(n(h))): s is `residualScale`, each n one of `norms`, or nothing. */
export interface LayerSpec {
  norms: LayerNorms;
  attention: AttentionSpec;
  mlp: MlpSpec;
  residualScale: number;
}

/** A layer's norms by their names in checkpoints; null: there is none. */
export interface LayerNorms {
  attentionInput: string | null;
  attentionOutput: string | null;
  mlpInput: string | null;
  mlpOutput: string | null;
}

export interface AttentionSpec {
  numHeads: number;
  numKeyValueHeads: number;
  headSize: number;
  /** Whether the projections of queries, keys and values have a bias. */
  bias: boolean;
  /** Whether the output projection has a bias. */
  outputBias: boolean;
  /** Norms of queries and keys, before their rotation: of every head by itself, or of all heads together; null: none. */
  qkNorm: 'heads' | 'all' | null;
  /** null: queries and keys are not rotated. */
  rope: RopeConfig | null;
  /** How many positions a query sees, its own included; 0: all before it. */
  window: number;
  /** Factor on q·k. */
  scale: number;
  /** c * tanh(score / c) on the scores; 0: none. */
  softcap: number;
}

export interface MlpSpec {
  intermediateSize: number;
  activation: Activation;
}

/** y = x / sqrt(mean(x²) + eps) · (weight + offset). */
export interface NormSpec {
  eps: number;
  /** 1 for checkpoints that store `weight - 1`. */
  offset: number;
}

export interface EmbeddingSpec {
  /** Factor on the embedding's output. */
  scale: number;
  /** Whether the factor is rounded to the model's dtype. */
  isScaleRounded: boolean;
}

/** logits = c · tanh(scale · hidden · headᵀ / c). */
export interface HeadSpec {
  scale: number;
  /** c; 0: none. */
  softcap: number;
}
