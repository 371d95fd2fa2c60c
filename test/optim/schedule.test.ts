// Learning rates: warm-up, decay, both ends.
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { learningRateAt, type ScheduleOptions } from '../../lib/optim/schedule.ts';

const options = (over: Partial<ScheduleOptions> = {}): ScheduleOptions => ({
  type: 'cosine',
  learningRate: 1,
  minLearningRate: 0.1,
  warmupSteps: 4,
  numSteps: 25,
  ...over,
});
const types = ['cosine', 'linear', 'constant'] as const;

function near(a: number, b: number): void {
  assert.ok(Math.abs(a - b) <= 1e-12, `${a} is not ${b}`);
}

describe('learning rate', () => {
  for (const type of types) {
    it(`${type}: warms up in equal parts, and is whole where the warm-up ends`, () => {
      const rates = [0, 1, 2, 3, 4].map((step) => learningRateAt(step, options({ type })));
      assert.deepEqual(rates, [0.25, 0.5, 0.75, 1, 1]);
    });

    it(`${type}: is whole at once without a warm-up`, () => {
      assert.equal(learningRateAt(0, options({ type, warmupSteps: 0 })), 1);
    });

    it(`${type}: stays between both rates and never rises after the warm-up`, () => {
      fc.assert(
        fc.property(
          fc.nat(20),
          fc.integer({ min: 1, max: 60 }),
          fc.double({ min: 0, max: 1, noNaN: true }),
          (warmupSteps, numSteps, minLearningRate) => {
            const schedule = options({ type, warmupSteps, numSteps, minLearningRate });
            let before = 1;
            for (let step = 0; step < numSteps + 5; step++) {
              const rate = learningRateAt(step, schedule);
              assert.ok(rate > 0 || minLearningRate < 1e-12, `${rate} at ${step}`);
              assert.ok(rate <= 1 + 1e-12, `${rate} at ${step}`);
              if (step < warmupSteps) continue;
              assert.ok(
                rate <= before + 1e-12 && rate >= minLearningRate - 1e-12,
                `${rate} after ${before} at ${step}`,
              );
              before = rate;
            }
          },
        ),
      );
    });
  }

  it('linear goes in equal steps to the lowest rate at the last step, and stays', () => {
    for (let step = 4; step < 25; step++) {
      near(learningRateAt(step, options({ type: 'linear' })), 1 - (0.9 * (step - 4)) / 20);
    }
    near(learningRateAt(24, options({ type: 'linear' })), 0.1);
    near(learningRateAt(1000, options({ type: 'linear' })), 0.1);
  });

  it('cosine: half way is the mean, the last step the lowest rate', () => {
    near(learningRateAt(14, options()), 0.55);
    near(learningRateAt(24, options()), 0.1);
    near(learningRateAt(1000, options()), 0.1);
    for (let step = 4; step < 25; step++) {
      near(learningRateAt(step, options()) + learningRateAt(28 - step, options()), 1.1);
    }
  });

  it('constant stays', () => {
    for (const step of [4, 24, 1000]) assert.equal(learningRateAt(step, options({ type: 'constant' })), 1);
  });

  it('a run of one step, and one that ends within its warm-up', () => {
    for (const type of types) {
      assert.equal(learningRateAt(0, options({ type, warmupSteps: 0, numSteps: 1 })), 1);
      assert.equal(learningRateAt(1, options({ type, numSteps: 2 })), 0.5);
    }
  });
});
