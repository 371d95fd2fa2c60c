// How the memory of a step goes, beside what simulateStep says of the same step.
import assert from 'node:assert/strict';
import { decoderConfig } from '../../lib/index.ts';
import { categories } from '../../lib/runtime/memory/statistics.ts';
import { type SimulatedStep, simulateStep } from '../../lib/step/simulate.ts';
import { stepTimeline } from '../../lib/step/timeline.ts';
import { tinyLlama } from '../support/runs.ts';

const step: SimulatedStep = {
  config: decoderConfig(tinyLlama),
  B: 1,
  T: 64,
  policy: { mlpChunkSize: 16, lossChunkSize: 16, mlpSave: 'input', recompute: 'attention' },
};
const sum = (values: readonly number[]) => values.reduce((all, each) => all + each, 0);

describe('the timeline of a step', () => {
  it('has the peak of the step, and its categories', () => {
    const memory = simulateStep(step);
    for (const maxPoints of [400, 7]) {
      const { points, peak, memory: same } = stepTimeline(step, { maxPoints });
      assert.deepEqual(same, memory);
      assert.deepEqual(
        points[peak]!.bytes,
        categories.map((category) => memory.peak[category]),
      );
      assert.ok(points.length <= maxPoints);
    }
  });

  it('goes from the begin of the forward to the end of the update', () => {
    const { points, forwards } = stepTimeline({ ...step, accumulationSteps: 2 }, { maxPoints: 1e6 });
    assert.deepEqual([points[0]!.at, forwards[0]!.begin], [0, 0]);
    assert.equal(forwards.length, 2);
    assert.ok(forwards[0]!.end < forwards[1]!.begin && forwards[1]!.end < points.at(-1)!.at);
    const numbers = points.map(({ at }) => at);
    assert.deepEqual(
      numbers,
      numbers.map((_, i) => i),
    );
  });

  it('names the tensors that hold most: all of them, where there is room', () => {
    const { points, groups } = stepTimeline(step, { maxGroups: 1000 });
    for (const { bytes, largest } of points) assert.equal(sum(largest.map((group) => group.bytes)), sum(bytes));
    const names = groups.map(({ category, tensors }) => `${category} ${tensors}`);
    assert.ok(names.includes('parameter float32 (256,32)'), names.join('; '));
    assert.ok(names.includes('workspace float32 (16,256)'), 'logits of one chunk');
    assert.equal(new Set(names).size, names.length);
  });

  it('leaves out the smaller groups beyond the number asked for', () => {
    for (const { largest } of stepTimeline(step, { maxGroups: 3 }).points) {
      assert.equal(largest.length, 3);
      assert.ok(largest[0]!.bytes >= largest[1]!.bytes && largest[1]!.bytes >= largest[2]!.bytes);
    }
  });
});
