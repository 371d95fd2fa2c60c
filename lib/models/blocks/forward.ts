// Arguments of a layer's forward besides its input.
import type { DropoutMask } from '../../ops/dropout.ts';
import type { Tensor } from '../../runtime/tensor.ts';
import type { Adapter } from '../adapter.ts';
import type { KeyValueCache } from '../cache.ts';
import type { StepPolicy } from '../policy.ts';

/** Token ids of B sequences of T, flat. */
export interface Tokens {
  /** (N,) int32. */
  inputs: Tensor;
  /** Length of a sequence. */
  T: number;
  /** (N,) int32: the first row of each row's document. If absent, each sequence is one document. */
  documentStart?: Tensor | null;
  /**
   * Length of the longest sequence without padding. If it exceeds max_position_embeddings, dynamic rope uses the frequencies of this length
   * for all sequences, as transformers does. @default T
   */
  length?: number;
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
