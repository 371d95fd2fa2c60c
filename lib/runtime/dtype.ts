// Element types in JavaScript.

export type Dtype = 'float32' | 'bfloat16' | 'float64' | 'int32' | 'uint8';

/** A tensor's elements on the host. A bfloat16 element is a 16-bit word, the upper half of an f32; `toFloat32` widens them. */
export type TensorData = Float32Array | Float64Array | Uint16Array | Int32Array | Uint8Array;

interface DtypeFacts {
  /** Value in the native enum. */
  code: number;
  bytes: number;
  array:
    | Float32ArrayConstructor
    | Float64ArrayConstructor
    | Uint16ArrayConstructor
    | Int32ArrayConstructor
    | Uint8ArrayConstructor;
}

export const dtypes: Record<Dtype, DtypeFacts> = {
  float32: { code: 0, bytes: 4, array: Float32Array },
  bfloat16: { code: 1, bytes: 2, array: Uint16Array },
  float64: { code: 2, bytes: 8, array: Float64Array },
  int32: { code: 3, bytes: 4, array: Int32Array },
  uint8: { code: 4, bytes: 1, array: Uint8Array },
};

/** Whether `name` is a dtype. */
export function isDtype(name: unknown): name is Dtype {
  return typeof name === 'string' && Object.hasOwn(dtypes, name);
}

/** The dtype in which ops compute and gradients accumulate: f64 for f64, f32 for all others. */
export function computeDtype(dtype: Dtype): 'float32' | 'float64' {
  return dtype === 'float64' ? 'float64' : 'float32';
}

/** Dtype of the gradients of a model's parameters. */
export type GradientDtype = 'float32' | 'bfloat16';

/** Dtype of a parameter's gradient: f32 (f64 for f64), or bf16 if `wanted`. Throws if bf16 is wanted for another dtype. */
export function gradientDtypeFor(op: string, dtype: Dtype, wanted: GradientDtype = 'float32'): Dtype {
  if (wanted === 'float32') return computeDtype(dtype);
  if (wanted !== 'bfloat16') throw new RangeError(`${op}: gradientDtype '${wanted}' is neither float32 nor bfloat16`);
  if (dtype === 'bfloat16') return 'bfloat16';
  throw new RangeError(`${op}: gradientDtype 'bfloat16' needs bfloat16 parameters, but these are ${dtype}`);
}

/** Widens bfloat16 words to f32; exact. */
export function toFloat32(words: Uint16Array): Float32Array {
  const widened = new Uint32Array(words.length);
  for (let i = 0; i < words.length; i++) widened[i] = words[i]! << 16;
  return new Float32Array(widened.buffer);
}

/** Rounds to bfloat16 words, to nearest with ties to even; NaN stays NaN. */
export function toBfloat16(values: ArrayLike<number>): Uint16Array {
  const floats = Float32Array.from(values);
  const bits = new Uint32Array(floats.buffer);
  const words = new Uint16Array(floats.length);
  for (let i = 0; i < words.length; i++) {
    const word = bits[i]!;
    words[i] = Number.isNaN(floats[i]) ? (word >>> 16) | 0x40 : (word + 0x7fff + ((word >>> 16) & 1)) >>> 16;
  }
  return words;
}
