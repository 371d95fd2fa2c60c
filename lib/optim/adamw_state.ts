// AdamW's state of one parameter, or of a rank's part of it.

import { SHARD_BLOCK } from '../ranks/shards.ts';
import type { Device } from '../runtime/device.ts';
import { computeDtype, type Dtype } from '../runtime/dtype.ts';
import { empty, type Tensor, zeros } from '../runtime/tensor.ts';

/** Bits of each element of m and v: 32 is f32 (f64 for f64), 16 is bf16, 8 is codes with one f32 scale per block of 256. */
export type StateBits = 32 | 16 | 8;

/** The tensors of native/ops/adamw.h. */
export interface AdamWState {
  m: Tensor;
  v: Tensor;
  mScales: Tensor | null;
  vScales: Tensor | null;
  /** f32 master copy of a bf16 parameter, which takes updates too small for bf16. */
  master: Tensor | null;
}

/** A tensor of an optimizer as a part of one for a whole parameter. */
export interface StatePart {
  name: string;
  tensor: Tensor;
  /** Elements of the whole parameter; null: every rank has the whole tensor. */
  of: number | null;
  /** Elements of the parameter for each of the tensor. */
  unit: 1 | typeof SHARD_BLOCK;
}

/** Elements of a tensor of the state for one of the parameter. */
export const unitOf = (part: string): StatePart['unit'] => (part.endsWith('Scales') ? SHARD_BLOCK : 1);

/** Number of elements that share a scale. */
const BLOCK = SHARD_BLOCK;
/** Vectors and smaller tensors always have f32 states, which costs little. */
const LEAST_NARROW = 4096;

/**
 * Allocates the state: m and v are zero, the master is uninitialised.
 * @param partSize elements of the part (partSize,) that it is for. @default the whole parameter, in its shape
 */
export function makeState(
  { shape, size, dtype, device }: Tensor,
  { stateBits, masterWeights }: { stateBits: StateBits; masterWeights: boolean },
  partSize?: number,
): AdamWState {
  const wide = like(device, computeDtype(dtype));
  const own = partSize === undefined ? shape : [partSize];
  const master = masterWeights && dtype === 'bfloat16' ? empty(own, wide) : null;
  if (stateBits !== 32 && dtype === 'float64') {
    throw new RangeError(`AdamW: stateBits ${stateBits} needs float32 or bfloat16 parameters, but one is float64`);
  }
  const isNarrow = shape.length >= 2 && size >= LEAST_NARROW;
  if (stateBits === 32 || !isNarrow) {
    return { m: zeros(own, wide), v: zeros(own, wide), mScales: null, vScales: null, master };
  }
  const narrow = like(device, stateBits === 16 ? 'bfloat16' : 'uint8');
  const scales = () => (stateBits === 8 ? zeros([Math.ceil((partSize ?? size) / BLOCK)], wide) : null);
  return { m: zeros(own, narrow), v: zeros(own, narrow), mScales: scales(), vScales: scales(), master };
}

const like = (device: Device, dtype: Dtype) => ({ device, dtype, category: 'optimizer' }) as const;
