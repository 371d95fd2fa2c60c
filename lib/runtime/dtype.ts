// Element types, as JavaScript sees them.

export type Dtype = 'float32' | 'bfloat16' | 'float64' | 'int32' | 'uint8';

/** A tensor's elements on the host. bfloat16 comes as the upper halves of f32 words; `toFloat32` widens them. */
export type TensorData = Float32Array | Float64Array | Uint16Array | Int32Array | Uint8Array;

interface DtypeFacts {
  /** Number of the native enum. */
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

/** Whether a name is a dtype's. */
export function isDtype(name: unknown): name is Dtype {
  return typeof name === 'string' && Object.hasOwn(dtypes, name);
}

/** What values of a dtype are computed and their gradients accumulated in: f64 for f64, else f32. */
export function computeDtype(dtype: Dtype): 'float32' | 'float64' {
  return dtype === 'float64' ? 'float64' : 'float32';
}

/** What the gradients of a model's parameters are kept in. */
export type GradientDtype = 'float32' | 'bfloat16';

/** The dtype of a parameter's gradient: f32 (f64 for f64), or bf16 where that is asked for and the parameter is bf16 too. */
export function gradientDtypeFor(op: string, dtype: Dtype, wanted: GradientDtype = 'float32'): Dtype {
  if (wanted === 'float32') return computeDtype(dtype);
  if (wanted !== 'bfloat16') throw new RangeError(`${op}: gradientDtype '${wanted}' is neither float32 nor bfloat16`);
  if (dtype === 'bfloat16') return 'bfloat16';
  throw new RangeError(`${op}: gradientDtype 'bfloat16' needs bfloat16 parameters, these are ${dtype}`);
}

/** Widens bfloat16 words to f32; exact. */
export function toFloat32(words: Uint16Array): Float32Array {
  const widened = new Uint32Array(words.length);
  for (let i = 0; i < words.length; i++) widened[i] = words[i]! << 16;
  return new Float32Array(widened.buffer);
}

/** Rounds to bfloat16 words: to nearest, ties to even; NaN stays NaN. */
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
