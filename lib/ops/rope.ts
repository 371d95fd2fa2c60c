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
  /** (R/2,) float64: angle of pair d at position p is p * inverseFrequencies[d]. */
  inverseFrequencies: Tensor;
  /** Factor on the rotated values (YaRN). @default 1 */
  scale?: number;
  /** Head size D; the first R columns of a head are rotated. @default R */
  headSize?: number;
  /** Whether columns 2d and 2d + 1 are pair d, instead of d and d + R/2. @default false */
  isInterleaved?: boolean;
  /** All columns at position p are multiplied by 1 + factor * ln(1 + floor(p / positions)). @default null: 1 */
  growth?: { factor: number; positions: number } | null;
}

/**
 * Rotates every head of x (N,heads·D) by its position: the row's place in its sequence of T, or in its document.
 * @param T sequence length; N is a multiple
 * @param documentStart (N,) int32: the first row of each row's document; positions count from it
 */
export function rope(x: Tensor, rotation: Rope, T: number, documentStart: Tensor | null = null): Tensor {
  const { inverseFrequencies, scale = 1, growth } = rotation;
  const { headSize: D = 2 * inverseFrequencies.size } = rotation;
  requireOneDevice('rope', { x, inverseFrequencies, documentStart });
  requireFloat('rope', 'x', x);
  requireDtype('rope', 'inverseFrequencies', inverseFrequencies, 'float64');
  requireCount('rope', 'T', T);
  requireFinite('rope', 'scale', scale);
  requireCount('rope', 'headSize', D);
  if (growth) {
    requireFinite('rope', 'growth.factor', growth.factor);
    requireCount('rope', 'growth.positions', growth.positions);
  }
  const [N, width] = rowsAndCols(x);
  if (D % 2 !== 0 || 2 * inverseFrequencies.size > D) {
    throw new RangeError(`rope: headSize must be even and at least ${2 * inverseFrequencies.size}, got ${D}`);
  }
  if (width % D !== 0) throw new RangeError(`rope: x has ${width} columns, not a multiple of the head size ${D}`);
  if (N % T !== 0) throw new RangeError(`rope: x has ${N} rows, not a multiple of T ${T}`);
  if (documentStart) {
    requireDtype('rope', 'documentStart', documentStart, 'int32');
    requireShape('rope', 'documentStart', documentStart, [N]);
  }
  const { device, dtype } = x;
  const options = rotationOptions(rotation, T);
  return operation({
    name: 'rope',
    inputs: { x },
    saved: { inverseFrequencies, documentStart },
    forward() {
      const y = empty([N, width], { dtype, device, category: 'activation' });
      kernels.rope(x, inverseFrequencies, documentStart, y, { ...options, isInverse: false });
      return { output: y };
    },
    // A rotation's transpose is the rotation by the opposite angle.
    backward(dy, { inverseFrequencies, documentStart }) {
      const dx = dy.isShared ? empty([N, width], { dtype, device, category: 'activation' }) : dy;
      kernels.rope(dy, inverseFrequencies, documentStart, dx, { ...options, isInverse: true });
      return { x: dx };
    },
  });
}

/** The kernel's options but for the direction. */
export function rotationOptions(
  { inverseFrequencies, scale = 1, headSize: D = 2 * inverseFrequencies.size, isInterleaved = false, growth }: Rope,
  T: number,
) {
  return { T, D, scale, isInterleaved, growth: growth?.factor ?? 0, growthPositions: growth?.positions ?? 1 };
}
