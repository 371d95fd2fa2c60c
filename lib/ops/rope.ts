// Rotary position embedding.

import { operation } from '../autograd/tape.ts';
import { kernels } from '../runtime/native.ts';
import { empty, type Tensor } from '../runtime/tensor.ts';
import {
  requireCount,
  requireDtype,
  requireFinite,
  requireFloat,
  requireOneDevice,
  requireShape,
  rowsAndCols,
} from './check.ts';

/** Frequencies and scale of a rotary position embedding. */
export interface Rope {
  /** (D/2,) float64: angle of pair d at position p is p * inverseFrequencies[d]. */
  inverseFrequencies: Tensor;
  /** Factor on the rotated values (YaRN). @default 1 */
  scale?: number;
}

/**
 * Rotates every head of x (N,heads·D) by its position: the row's place in its sequence of T, or in its document.
 * @param T sequence length; N is a multiple
 * @param documentStart (N,) int32: the first row of each row's document; positions count from it
 */
export function rope(
  x: Tensor,
  { inverseFrequencies, scale = 1 }: Rope,
  T: number,
  documentStart: Tensor | null = null,
): Tensor {
  requireOneDevice('rope', { x, inverseFrequencies, documentStart });
  requireFloat('rope', 'x', x);
  requireDtype('rope', 'inverseFrequencies', inverseFrequencies, 'float64');
  requireCount('rope', 'T', T);
  requireFinite('rope', 'scale', scale);
  const D = 2 * inverseFrequencies.size;
  const [N, width] = rowsAndCols(x);
  if (width % D !== 0) throw new RangeError(`rope: x has ${width} columns, not a multiple of the head size ${D}`);
  if (N % T !== 0) throw new RangeError(`rope: x has ${N} rows, not a multiple of T ${T}`);
  if (documentStart) {
    requireDtype('rope', 'documentStart', documentStart, 'int32');
    requireShape('rope', 'documentStart', documentStart, [N]);
  }
  const { device, dtype } = x;
  return operation({
    name: 'rope',
    inputs: [x],
    saved: { inverseFrequencies, documentStart },
    forward() {
      const y = empty([N, width], { dtype, device, category: 'activation' });
      kernels.rope(x, inverseFrequencies, documentStart, y, T, D, scale, false);
      return { output: y };
    },
    // A rotation's transpose is the rotation by the opposite angle.
    backward(dy, { inverseFrequencies, documentStart }) {
      const dx = dy.isShared ? empty([N, width], { dtype, device, category: 'activation' }) : dy;
      kernels.rope(dy, inverseFrequencies, documentStart, dx, T, D, scale, true);
      return [dx];
    },
  });
}
