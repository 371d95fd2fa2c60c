// The values in its file of a parameter that was rounded when it was loaded.
import type { StoredValues } from '../autograd/parameter.ts';
import { type Dtype, dtypes } from '../runtime/dtype.ts';
import { dtypeBytes, type SafetensorsDtype } from '../runtime/safetensors_dtype.ts';

import { fromFile, toFile, toFloat64 } from './elements.ts';
import type { SafetensorsFile } from './safetensors.ts';

export class StoredTensor implements StoredValues {
  readonly dtype: SafetensorsDtype;
  readonly #file: SafetensorsFile;
  readonly #name: string;

  /** The file stays open as long as the model exists. */
  constructor(file: SafetensorsFile, name: string) {
    this.#file = file;
    this.#name = name;
    this.dtype = file.entries.get(name)!.dtype;
  }

  async read(begin: number, end: number): Promise<Float32Array> {
    return this.#toFloat32(await this.#read(begin, end));
  }

  readSync(begin: number, end: number): Float32Array {
    const each = dtypeBytes[this.dtype];
    return this.#toFloat32(this.#file.readRangeSync(this.#name, begin * each, end * each));
  }

  /**
   * Replaces each element that still equals its rounded value by the stored value, so that untrained values are saved byte for byte.
   * @param elements [begin, …) of the parameter or its master, of dtype `from`
   * @param bytes the same elements in dtype `to`; overwritten
   */
  async restore(
    elements: Uint8Array,
    from: Dtype,
    { bytes, to, begin }: { bytes: Uint8Array; to: SafetensorsDtype; begin: number },
  ): Promise<void> {
    const count = elements.length / dtypes[from].bytes;
    const stored = await this.#read(begin, begin + count);
    const rounded = fromFile(this.#name, stored, this.dtype, from);
    const exact = to === this.dtype ? stored : toFile(toFloat64(this.#name, stored, this.dtype), 'float64', to);
    const [now, then] = [words(elements), words(rounded)];
    const [target, source] = [words(bytes), words(exact)];
    const [compared, copied] = [now.length / count, target.length / count];
    for (let i = 0; i < count; i++) {
      let isEqual = true;
      for (let w = i * compared; w < (i + 1) * compared; w++) isEqual &&= now[w] === then[w];
      if (isEqual) for (let w = i * copied; w < (i + 1) * copied; w++) target[w] = source[w]!;
    }
  }

  #read(begin: number, end: number): Promise<Uint8Array> {
    const each = dtypeBytes[this.dtype];
    return this.#file.readRange(this.#name, begin * each, end * each);
  }

  #toFloat32(bytes: Uint8Array): Float32Array {
    const { buffer, byteOffset, byteLength } = fromFile(this.#name, bytes, this.dtype, 'float32');
    return new Float32Array(buffer as ArrayBuffer, byteOffset, byteLength / 4);
  }
}

/** The size of every dtype of weights is a multiple of two bytes. */
function words({ buffer, byteOffset, byteLength }: ArrayBufferView): Uint16Array {
  return new Uint16Array(buffer as ArrayBuffer, byteOffset, byteLength / 2);
}
