import type { SafetensorsDtype } from '../runtime/safetensors_dtype.ts';

/** A tensor that is copied from file to file. */
export interface CarriedTensor {
  name: string;
  dtype: SafetensorsDtype;
  shape: readonly number[];
  /** Its bytes, in pieces. */
  data(): AsyncIterable<Uint8Array>;
}

/** The files that a model's weights were loaded from, and their names and dtypes there. */
export interface ModelOrigin {
  folder: string;
  /** Name and dtype in the files, by parameter; also of a tied head that is stored. */
  stored: ReadonlyMap<string, { name: string; dtype: SafetensorsDtype }>;
  /** The name that a parameter has in such files, also one that they lack. */
  nameOf(parameter: string): string;
  /** Tensors of the files that are not the model's own: other parts of a larger model, which are saved as they are. */
  carried: readonly CarriedTensor[];
  /** Closes files that were kept open because loading rounded their values, or for tensors that are carried. */
  close(): void;
}
