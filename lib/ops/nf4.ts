// Weights in 4 bits: NF4 with double quantisation (QLoRA, arXiv 2305.14314); the layout is in native/ops/nf4.h.

import type { Device } from '../runtime/device.ts';
import { kernels } from '../runtime/native.ts';
import { tidy } from '../runtime/scope.ts';
import { empty, type Tensor } from '../runtime/tensor.ts';
import { requireDtype, requireFloat, requireOneDevice, requireShape } from './check.ts';

/** Elements that share a largest magnitude, and blocks whose largest magnitudes share a scale. */
const BLOCK = 64;
const GROUP = 256;

/** n elements in B = ⌈n / 64⌉ blocks: 4.127 bits an element. */
export interface Nf4Tensors {
  /** (⌈n / 2⌉,) uint8: two elements a byte, the first in the high half. */
  codes: Tensor;
  /** (B,) uint8: each block's largest magnitude less `offset`, by the signed dynamic map. */
  absmax: Tensor;
  /** (⌈B / 256⌉,) float32: what the map's values are multiplied by. */
  scales: Tensor;
  /** (1,) float32: the mean of the largest magnitudes. */
  offset: Tensor;
}

/** Shapes of the tensors for n elements. */
function shapesOf(n: number): Record<keyof Nf4Tensors, [number]> {
  const numBlocks = Math.ceil(n / BLOCK);
  return { codes: [Math.ceil(n / 2)], absmax: [numBlocks], scales: [Math.ceil(numBlocks / GROUP)], offset: [1] };
}

/**
 * x in 4 bits, each element rounded to the nearest of the 16 values times its block's largest magnitude. Blocks are taken from x's elements
 * in order, across rows. Of an x with an element that is not finite, no element comes back finite. No gradient flows through.
 * @param x float; float64 is taken as float32
 */
export function quantizeNf4(x: Tensor): Nf4Tensors {
  requireFloat('quantizeNf4', 'x', x);
  return tidy(() => {
    const to = emptyNf4(x.size, x.device);
    quantizeNf4Into(x, to);
    return to;
  });
}

/** Uninitialised tensors for n elements. */
export function emptyNf4(n: number, device: Device): Nf4Tensors {
  const shapes = shapesOf(n);
  const make = (name: keyof Nf4Tensors, dtype: 'uint8' | 'float32') =>
    empty(shapes[name], { dtype, device, category: 'parameter' });
  return tidy(() => ({
    codes: make('codes', 'uint8'),
    absmax: make('absmax', 'uint8'),
    scales: make('scales', 'float32'),
    offset: make('offset', 'float32'),
  }));
}

/** The same as quantizeNf4, into tensors of x's size. */
export function quantizeNf4Into(x: Tensor, to: Nf4Tensors): void {
  requireFloat('quantizeNf4', 'x', x);
  const { absmax } = shapesOf(x.size);
  tidy(() => kernels.nf4_quantize(x, { ...to }, empty(absmax, { device: x.device, category: 'workspace' })));
}

/**
 * What the tensors stand for, computed in f32 and rounded once to `dtype`. No gradient flows through.
 * @param shape of the result
 */
export function dequantizeNf4(
  from: Nf4Tensors,
  shape: readonly number[],
  dtype: 'float32' | 'bfloat16' | 'float64' = 'bfloat16',
): Tensor {
  const { codes, absmax, scales, offset } = from;
  const op = 'dequantizeNf4';
  requireOneDevice(op, { codes, absmax, scales, offset });
  const y = empty(shape, { dtype, device: codes.device, category: 'workspace' });
  try {
    requireFloat(op, 'dtype', y);
    const shapes = shapesOf(y.size);
    for (const [name, tensor] of Object.entries({ codes, absmax, scales, offset })) {
      requireShape(op, name, tensor, shapes[name as keyof Nf4Tensors]);
      requireDtype(op, name, tensor, name === 'codes' || name === 'absmax' ? 'uint8' : 'float32');
    }
    kernels.nf4_dequantize({ codes, absmax, scales, offset }, y);
    return y;
  } catch (error) {
    y.dispose();
    throw error;
  }
}
