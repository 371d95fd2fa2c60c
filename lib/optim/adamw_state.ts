// What AdamW keeps of one parameter.
import type { Device } from '../runtime/device.ts';
import { computeDtype, type Dtype } from '../runtime/dtype.ts';
import { empty, type Tensor, zeros } from '../runtime/tensor.ts';

/** Bits of each element of m and v: f32 (f64 for f64), bf16, or codes of 8 bits with an f32 scale for each block of 256. */
export type StateBits = 32 | 16 | 8;

/** The tensors of native/ops/adamw.h. */
export interface AdamWState {
  m: Tensor;
  v: Tensor;
  mScales: Tensor | null;
  vScales: Tensor | null;
  /** f32 copy of a bf16 parameter, which takes updates too small for bf16. */
  master: Tensor | null;
}

/** Elements that share a scale. */
const BLOCK = 256;
/** Vectors and smaller tensors keep their states in f32, which costs nothing. */
const LEAST_NARROW = 4096;

/** m and v of zero; the master has garbage in it. */
export function makeState(
  { shape, size, dtype, device }: Tensor,
  { stateBits, masterWeights }: { stateBits: StateBits; masterWeights: boolean },
): AdamWState {
  const wide = like(device, computeDtype(dtype));
  const master = masterWeights && dtype === 'bfloat16' ? empty(shape, wide) : null;
  if (stateBits !== 32 && dtype === 'float64') {
    throw new RangeError(`AdamW: stateBits ${stateBits} is for parameters in float32 and bfloat16, one is float64`);
  }
  const isNarrow = shape.length >= 2 && size >= LEAST_NARROW;
  if (stateBits === 32 || !isNarrow) {
    return { m: zeros(shape, wide), v: zeros(shape, wide), mScales: null, vScales: null, master };
  }
  const narrow = like(device, stateBits === 16 ? 'bfloat16' : 'uint8');
  const scales = () => (stateBits === 8 ? zeros([Math.ceil(size / BLOCK)], wide) : null);
  return { m: zeros(shape, narrow), v: zeros(shape, narrow), mScales: scales(), vScales: scales(), master };
}

const like = (device: Device, dtype: Dtype) => ({ device, dtype, category: 'optimizer' }) as const;
