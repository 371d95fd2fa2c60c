// What two runs must have alike at each step.
import assert from 'node:assert/strict';
import type { TrainResult } from '../../lib/index.ts';

export const stepNumbers = ({ metrics }: TrainResult) =>
  metrics.map(({ loss, gradNorm, tokens }) => ({ loss, gradNorm, tokens }));

/** Relative errors of losses are at most `tolerance`, those of norms ten times as much; tokens are equal. */
export function assertCloseSteps(actual: TrainResult, expected: TrainResult, tolerance: number): void {
  const [a, b] = [stepNumbers(actual), stepNumbers(expected)];
  assert.equal(a.length, b.length);
  for (const [i, { loss, gradNorm, tokens }] of a.entries()) {
    assert.equal(tokens, b[i]!.tokens, `tokens of step ${i + 1}`);
    assert.ok(Math.abs(loss - b[i]!.loss) <= tolerance * b[i]!.loss, `step ${i + 1}: loss ${loss}, ${b[i]!.loss}`);
    const error = Math.abs(gradNorm - b[i]!.gradNorm) / b[i]!.gradNorm;
    assert.ok(error <= 10 * tolerance, `step ${i + 1}: norm ${gradNorm}, ${b[i]!.gradNorm}`);
  }
}
