// Converts elements of weights between dtypes of files and of parameters.
import { type Dtype, type TensorData, toBfloat16, toFloat32 } from '../runtime/dtype.ts';
import type { SafetensorsDtype } from '../runtime/safetensors_dtype.ts';
import { SafetensorsError } from './safetensors.ts';

/** Names of the parameters' dtypes in files. */
export const fileDtypes: Record<Dtype, SafetensorsDtype> = {
  float32: 'F32',
  bfloat16: 'BF16',
  float64: 'F64',
  int32: 'I32',
  uint8: 'U8',
};

/** The narrowest dtype that holds a file's values exactly; null if no weights have this dtype. */
export function dtypeFor(stored: SafetensorsDtype): Dtype | null {
  return (
    ({ F64: 'float64', F32: 'float32', F16: 'float32', BF16: 'bfloat16' } as Record<string, Dtype>)[stored] ?? null
  );
}

/** Whether a parameter's dtype holds every value of a file's dtype. */
export function holds(dtype: Dtype, stored: SafetensorsDtype): boolean {
  if (dtype === 'bfloat16') return stored === 'BF16';
  return dtype === 'float64' || stored !== 'F64';
}

/** Converts bytes of a file to elements of a parameter's dtype; rounds to nearest if that is narrower. */
export function fromFile(name: string, bytes: Uint8Array, from: SafetensorsDtype, to: Dtype): TensorData | Uint8Array {
  if (fileDtypes[to] === from) return bytes;
  const floats = toFloats(name, bytes, from);
  if (to === 'float32') return floats instanceof Float32Array ? floats : Float32Array.from(floats);
  return to === 'bfloat16' ? toBfloat16(floats) : Float64Array.from(floats);
}

/** Converts bytes of a file to f64, exactly. */
export function toFloat64(name: string, bytes: Uint8Array, from: SafetensorsDtype): Float64Array {
  const floats = toFloats(name, bytes, from);
  return floats instanceof Float64Array ? floats : Float64Array.from(floats);
}

/** Converts a parameter's elements to bytes of a file's dtype. */
export function toFile(data: TensorData, from: Dtype, to: SafetensorsDtype): Uint8Array {
  if (fileDtypes[from] === to) return bytesOf(data);
  const floats = data instanceof Uint16Array ? toFloat32(data) : data;
  switch (to) {
    case 'F64':
      return bytesOf(Float64Array.from(floats));
    case 'F32':
      return bytesOf(Float32Array.from(floats));
    case 'BF16':
      return bytesOf(toBfloat16(floats));
    case 'F16':
      return bytesOf(toHalf(floats));
    default:
      throw new TypeError(`safetensors: weights cannot be written as ${to}`);
  }
}

export function bytesOf({ buffer, byteOffset, byteLength }: TensorData): Uint8Array {
  return new Uint8Array(buffer, byteOffset, byteLength);
}

function toFloats(
  name: string,
  { buffer, byteOffset, byteLength }: Uint8Array,
  dtype: SafetensorsDtype,
): Float32Array | Float64Array {
  switch (dtype) {
    case 'F32':
      return new Float32Array(buffer, byteOffset, byteLength / 4);
    case 'F64':
      return new Float64Array(buffer, byteOffset, byteLength / 8);
    case 'BF16':
      return toFloat32(new Uint16Array(buffer, byteOffset, byteLength / 2));
    case 'F16':
      return Float32Array.from(new Uint16Array(buffer, byteOffset, byteLength / 2), halfToFloat);
    default:
      throw new SafetensorsError(`'${name}' has dtype ${dtype}, which is not supported for weights`);
  }
}

/** Reads IEEE half precision, exactly. */
function halfToFloat(word: number): number {
  const sign = word & 0x8000 ? -1 : 1;
  const exponent = (word >> 10) & 0x1f;
  const fraction = word & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? Number.NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** Rounds to half precision, to nearest, ties to even; beyond 65504 to infinity. */
function toHalf(values: ArrayLike<number>): Uint16Array {
  const words = new Uint16Array(values.length);
  for (let i = 0; i < words.length; i++) words[i] = halfOf(values[i]!);
  return words;
}

function halfOf(value: number): number {
  if (Number.isNaN(value)) return 0x7e00;
  const sign = value < 0 || Object.is(value, -0) ? 0x8000 : 0;
  const size = Math.abs(value);
  if (size >= 65520) return sign | 0x7c00;
  // The spacing of half-precision numbers of this size, subnormals included. Dividing by a power of two is exact.
  const exponent = Math.max(Math.floor(Math.log2(size || 1)), -14);
  const spacing = 2 ** ((size < 2 ** exponent ? exponent - 1 : exponent) - 10);
  const rounded = roundTiesToEven(size / Math.max(spacing, 2 ** -24)) * Math.max(spacing, 2 ** -24);
  if (rounded >= 65536) return sign | 0x7c00;
  if (rounded < 2 ** -14) return sign | (rounded * 2 ** 24);
  let power = Math.floor(Math.log2(rounded));
  if (2 ** power > rounded) power -= 1;
  return sign | (((power + 15) << 10) + (rounded / 2 ** power - 1) * 1024);
}

function roundTiesToEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor;
}
