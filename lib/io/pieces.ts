// Tensors in pieces, so that only a small part of one is on the host at a time.
import { tidy } from '../runtime/scope.ts';
import type { Tensor } from '../runtime/tensor.ts';

/** Size of a piece in bytes; a multiple of every dtype's size. */
export const PIECE_BYTES = 16 * 2 ** 20;

/** Calls fn with elements [begin, end) of a tensor. */
export function slice<T>(tensor: Tensor, begin: number, end: number, fn: (piece: Tensor) => T): T {
  return tidy(() => fn(tensor.alias().reshape([tensor.size]).rows(begin, end)));
}
