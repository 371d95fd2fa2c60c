// What a layer's forward is given beside its input.
import type { DropoutMask } from '../../ops/dropout.ts';
import type { Tensor } from '../../runtime/tensor.ts';
import type { Adapter } from '../adapter.ts';
import type { KeyValueCache } from '../cache.ts';
import type { StepPolicy } from '../policy.ts';

/** Token ids of B sequences of T, flat. */
export interface Tokens {
  /** (N,) int32. */
  inputs: Tensor;
  /** Length of one sequence. */
  T: number;
  /** (N,) int32: the row where each row's document begins; absent: each sequence is one document. */
  documentStart?: Tensor | null;
  /**
   * Tokens of the longest sequence without its padding. Beyond max_position_embeddings dynamic rope has the frequencies of this length for all
   * sequences, as transformers has. @default T
   */
  length?: number;
}

export interface Forward {
  tokens: Tokens;
  policy: StepPolicy;
  /** By the paths of their projections. */
  adapters: ReadonlyMap<string, Adapter>;
  /** Of the adapters' inputs; null: none. */
  dropout: DropoutMask | null;
  /** The tokens are the next of a sequence whose keys and values it holds; null: they are whole sequences. */
  cache: KeyValueCache | null;
}
