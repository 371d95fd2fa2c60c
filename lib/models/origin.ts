import type { SafetensorsDtype } from '../runtime/safetensors_dtype.ts';

/** The files that a model's weights were loaded from, and their names and dtypes there. */
export interface ModelOrigin {
  folder: string;
  /** Name and dtype in the files, by parameter; also of a tied head that is stored. */
  stored: ReadonlyMap<string, { name: string; dtype: SafetensorsDtype }>;
  /** Closes files that were kept open because loading rounded their values. */
  close(): void;
}
