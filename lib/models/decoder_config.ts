// The shape of a decoder, whatever family it is of.
import type { Activation } from '../ops/glu.ts';
import type { HuggingFaceConfig } from './fields.ts';
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
