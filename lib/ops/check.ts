// Argument checks of ops. Each error names the op, the argument and both values.
import type { Dtype } from '../runtime/dtype.ts';
import type { Tensor } from '../runtime/tensor.ts';

/** A tensor, or a weight that describes itself as one does. */
type Described = Pick<Tensor, 'shape' | 'dtype' | 'device'>;

/** Rows N and columns of a tensor of rank 1 or more: (B,T,C) has N = B·T rows of C columns. */
export function rowsAndCols(tensor: Tensor): [number, number] {
  const cols = tensor.shape.at(-1) ?? 1;
  return [cols === 0 ? 0 : tensor.size / cols, cols];
}

export function requireRank(op: string, argument: string, tensor: Pick<Described, 'shape'>, rank: number): void {
  if (tensor.shape.length !== rank) {
    throw new RangeError(
      `${op}: ${argument} must have rank ${rank}, got rank ${tensor.shape.length} (${tensor.shape})`,
    );
  }
}

export function requireShape(
  op: string,
  argument: string,
  tensor: Pick<Described, 'shape'>,
  shape: readonly number[],
): void {
  if (tensor.shape.length !== shape.length || tensor.shape.some((length, i) => length !== shape[i])) {
    throw new RangeError(`${op}: ${argument} must be (${shape}), got (${tensor.shape})`);
  }
}

export function requireDtype(
  op: string,
  argument: string,
  tensor: Pick<Described, 'dtype'>,
  ...allowed: Dtype[]
): void {
  if (!allowed.includes(tensor.dtype)) {
    throw new TypeError(`${op}: ${argument} must be ${allowed.join(' or ')}, got ${tensor.dtype}`);
  }
}

export function requireFloat(op: string, argument: string, tensor: Tensor): void {
  requireDtype(op, argument, tensor, 'float32', 'bfloat16', 'float64');
}

/** Requires that all tensors are on one device; null if absent. */
export function requireOneDevice(
  op: string,
  tensors: Record<string, Pick<Described, 'device'> | null | undefined>,
): void {
  const present = Object.entries(tensors).filter(
    (entry): entry is [string, Pick<Described, 'device'>] => entry[1] != null,
  );
  const [first] = present;
  for (const [argument, tensor] of present) {
    if (tensor.device !== first![1].device) {
      throw new TypeError(`${op}: ${argument} is on ${tensor.device}, ${first![0]} on ${first![1].device}`);
    }
  }
}

/** Requires a positive integer. */
export function requireCount(op: string, argument: string, value: number): void {
  if (!Number.isSafeInteger(value) || value < 1) {
    throw new RangeError(`${op}: ${argument} must be a positive integer, got ${value}`);
  }
}

/** Requires a safe integer in [min, max]. */
export function requireInteger(
  op: string,
  argument: string,
  value: number,
  { min = Number.MIN_SAFE_INTEGER, max = Number.MAX_SAFE_INTEGER } = {},
): void {
  if (!Number.isSafeInteger(value) || value < min || value > max) {
    throw new RangeError(`${op}: ${argument} must be an integer in [${min}, ${max}], got ${value}`);
  }
}

export function requireFinite(
  op: string,
  argument: string,
  value: number,
  { min = -Infinity, max = Infinity } = {},
): void {
  if (!Number.isFinite(value) || value < min || value > max) {
    throw new RangeError(`${op}: ${argument} must be a number in [${min}, ${max}], got ${value}`);
  }
}
