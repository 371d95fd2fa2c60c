// Describes a decoder of any family: its sizes, and a specification of every layer.
import type { Activation } from '../ops/glu.ts';
import type { HuggingFaceConfig } from './fields.ts';
import type { RopeConfig } from './rope_config.ts';

/** How frozen projections are stored: NF4 in blocks of 64 with double quantisation; see native/ops/nf4.h. */
export type Quantization = 'nf4';

/** Everything that the decoder needs to know of a model. Each family converts its config.json to this. */
export interface DecoderConfig {
  vocabSize: number;
  hiddenSize: number;
  layers: readonly LayerSpec[];
  /** eps of every norm. */
  norm: NormSpec;
  embedding: EmbeddingSpec;
  head: HeadSpec;
  /** Whether config.json is of a larger model, of which this is the text part; folders hold its other weights too. */
  isTextPart: boolean;
  /** Whether the head shares the embedding's weight. */
  tieWordEmbeddings: boolean;
  /**
   * 'nf4': the projections of attention and MLP are frozen weights in 4 bits (see `QuantizedWeight`), and only adapters are trained; embedding,
   * head and norms keep the model's dtype. null: all weights have it.
   */
  quantization: Quantization | null;
  /** Standard deviation of random initial weights. */
  initializerRange: number;
  /** End-of-document ids from config.json. Training text has the first of them after each document. */
  eosTokenIds: number[];
  /** The config.json to write with saved weights. */
  source: HuggingFaceConfig;
}

/**
 * A layer: h = x + s · n(attention(n(x))), then y = h + s · n(mlp(n(h))). s is `residualScale`; each n is one of `norms`, or none. Where
 * `hasScalar`, the output is y times a number that files store and no step changes.
 */
export interface LayerSpec {
  norms: LayerNorms;
  attention: AttentionSpec;
  mlp: MlpSpec;
  residualScale: number;
  hasScalar: boolean;
}

/** Names of a layer's norms in checkpoints; null: no norm. */
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
  /** Whether one weight, qkv_proj, holds the rows of the query, key and value projections; they then have no bias. */
  isFused: boolean;
  /** Whether values are the keys' projection, before its norm and rotation; there is no projection of values then. */
  areValuesKeys: boolean;
  /** Whether each head's values are normalised, without weights. */
  hasValueNorm: boolean;
  /** Whether the query, key and value projections have a bias. */
  bias: boolean;
  /** Whether the output projection has a bias. */
  outputBias: boolean;
  /** Norms of queries and keys: 'heads' normalises each head separately, 'all' all heads together; null: none. */
  qkNorm: 'heads' | 'all' | null;
  /** The names of these norms in checkpoints. */
  qkNormNames: { q: string; k: string };
  /** Whether they come after the rotation instead of before it. */
  isNormedAfterRotation: boolean;
  /** Rotary position embedding; null: none. */
  rope: RopeConfig | null;
  /** Number of columns of each head, from its first on, that are rotated. */
  rotatedSize: number;
  /** Whether columns 2d and 2d + 1 of a head are a pair that turns, instead of d and d + rotatedSize/2. */
  isInterleaved: boolean;
  /** Queries at position p are multiplied by 1 + factor · ln(1 + floor(p / positions)), after their rotation; null: not. */
  queryGrowth: { factor: number; positions: number } | null;
  /** Number of positions that a query sees, its own included; 0: all up to its own. */
  window: number;
  /** Factor on q·k. */
  scale: number;
  /** Soft cap c of the scores; 0: none. */
  softcap: number;
}

export interface MlpSpec {
  intermediateSize: number;
  activation: Activation;
  /** Whether one weight, gate_up_proj, holds the rows of gate and up; it then has no bias. */
  isFused: boolean;
  /** Whether its three projections have biases. */
  bias: boolean;
  /** A mixture of such MLPs, not fused and without biases; null: one MLP. */
  experts: ExpertsSpec | null;
}

/** A router gives each token to `perToken` of `count` MLPs; see chunked_experts.ts. */
export interface ExpertsSpec {
  count: number;
  perToken: number;
  /** Whether the weights of a token's experts are divided by their sum. */
  isNormalized: boolean;
  /** Names in checkpoints, below the layer's: of the block, which holds `gate` and `experts`, and of an expert's projections. */
  names: { block: string; gate: string; up: string; down: string };
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

/** logits = c · tanh(scale · hidden · headᵀ / c), with soft cap c. */
export interface HeadSpec {
  scale: number;
  /** Soft cap c; 0: none. */
  softcap: number;
}
