// Arguments of a layer's forward besides its input.
import type { DropoutMask } from '../../ops/dropout.ts';
import type { SequenceRanks } from '../../ops/head_exchange.ts';
import type { Tensor } from '../../runtime/tensor.ts';
import type { Adapter } from '../adapter.ts';
import type { KeyValueCache } from '../cache.ts';
import type { StepPolicy } from '../policy.ts';

/** Token ids of B sequences of T, flat. */
export interface Tokens {
  /** (N,) int32. */
  inputs: Tensor;
  /** Length of a sequence; of this rank's part of it where `sequence` says so. */
  T: number;
  /**
   * (N,) int32: the first row of each row's document, which positions count from; with `sequence` it is negative where that row is another
   * rank's. If absent, each sequence is one document.
   */
  documentStart?: Tensor | null;
  /**
   * Length of the longest sequence without padding. If it exceeds max_position_embeddings, dynamic rope uses the frequencies of this length
   * for all sequences, as transformers does. @default T
   */
  length?: number;
  /** The ranks that have the sequences' other tokens. @default null: these are whole sequences */
  sequence?: SharedSequences<Tensor> | null;
}

/** Sequences of which each of several ranks has T/size neighbouring tokens. `Ids`: int32, on the host or on a device. */
export interface SharedSequences<Ids> {
  ranks: SequenceRanks;
  /** Length of a sequence over all ranks, with its padding: a multiple of their number. */
  T: number;
  /** The same without that padding. */
  givenT: number;
  /** (B·T,): the first row of each row's document, in the whole batch; null: each sequence is one document. */
  documentStart: Ids | null;
}

export interface Forward {
  tokens: Tokens;
  policy: StepPolicy;
  /** Adapters by the path of their projection. */
  adapters: ReadonlyMap<string, Adapter>;
  /** Dropout of the adapters' inputs; null: none. */
  dropout: DropoutMask | null;
  /** Keys and values of the tokens before these, which continue one sequence; null: the tokens are whole sequences. */
  cache: KeyValueCache | null;
}
