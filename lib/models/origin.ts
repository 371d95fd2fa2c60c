import type { SafetensorsDtype } from '../runtime/safetensors_dtype.ts';

/** Where a model's weights came from, and what they were stored as. */
export interface ModelOrigin {
  folder: string;
  /** By parameter, and for a tied head that is stored too: its name and dtype in the files. */
  stored: ReadonlyMap<string, { name: string; dtype: SafetensorsDtype }>;
  /** Closes files that were kept open for values that the parameters' dtype does not hold. */
  close(): void;
}
