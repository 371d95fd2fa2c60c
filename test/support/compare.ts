// Comparing results: relative error is ‖a − b‖ / ‖b‖ per tensor, everywhere.
import assert from 'node:assert/strict';

/** ‖a − b‖ / ‖b‖; NaN anywhere gives NaN. Zero against zero is 0. */
export function relativeError(a: ArrayLike<number>, b: ArrayLike<number>): number {
  assert.equal(a.length, b.length, 'lengths differ');
  let difference = 0;
  let norm = 0;
  for (let i = 0; i < a.length; i++) {
    difference += (a[i]! - b[i]!) ** 2;
    norm += b[i]! ** 2;
  }
  return norm === 0 ? Math.sqrt(difference) : Math.sqrt(difference / norm);
}

/** Fails unless a is within `tolerance` of b; NaN fails. */
export function assertClose(a: ArrayLike<number>, b: ArrayLike<number>, tolerance: number, what: string): void {
  const error = relativeError(a, b);
  assert.ok(error <= tolerance, `${what}: relative error ${error.toExponential(2)} is over ${tolerance}`);
}
