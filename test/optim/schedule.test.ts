// Learning rates: warm-up, decay, both ends.
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { learningRateAt, type ScheduleOptions, warmupProblem } from '../../lib/optim/schedule.ts';

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
    it(`${type}: warms up in equal steps, and reaches the full rate at the end of the warm-up`, () => {
      const rates = [0, 1, 2, 3, 4].map((step) => learningRateAt(step, options({ type })));
      assert.deepEqual(rates, [0.25, 0.5, 0.75, 1, 1]);
    });

    it(`${type}: has the full rate at once without a warm-up`, () => {
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

  it('linear goes in equal steps towards the lowest rate, which the step after the last one would have', () => {
    for (let step = 4; step < 25; step++) {
      near(learningRateAt(step, options({ type: 'linear' })), 1 - (0.9 * (step - 4)) / 21);
    }
    near(learningRateAt(25, options({ type: 'linear' })), 0.1);
    near(learningRateAt(1000, options({ type: 'linear' })), 0.1);
  });

  it('cosine: half way is the mean, the last step one above the lowest rate', () => {
    near(learningRateAt(14, options({ numSteps: 24 })), 0.55);
    near(learningRateAt(24, options()), 0.1 + 0.45 * (1 + Math.cos((Math.PI * 20) / 21)));
    near(learningRateAt(25, options()), 0.1);
    near(learningRateAt(1000, options()), 0.1);
    for (let step = 4; step <= 25; step++) {
      near(learningRateAt(step, options()) + learningRateAt(29 - step, options()), 1.1);
    }
  });

  // As transformers' get_cosine_schedule_with_warmup and get_linear_schedule_with_warmup.
  it('a run of two steps has the full rate, then half of it', () => {
    for (const type of ['cosine', 'linear'] as const) {
      const rates = [0, 1].map((step) =>
        learningRateAt(step, { type, learningRate: 0.01, minLearningRate: 0, warmupSteps: 0, numSteps: 2 }),
      );
      near(rates[0]!, 0.01);
      near(rates[1]!, 0.005);
    }
  });

  it('no step of a run has rate 0', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...types),
        fc.nat(20),
        fc.integer({ min: 1, max: 60 }),
        (type, warmupSteps, numSteps) => {
          for (let step = 0; step < numSteps; step++) {
            assert.ok(learningRateAt(step, options({ type, warmupSteps, numSteps, minLearningRate: 0 })) > 0);
          }
        },
      ),
    );
  });

  it('reports a warm-up that leaves no step to decay', () => {
    const problem = (warmupSteps: number, numSteps: number, type: ScheduleOptions['type'] = 'cosine') =>
      warmupProblem(options({ type, warmupSteps, numSteps }));
    for (const warmupSteps of [3, 4]) assert.match(problem(warmupSteps, 4)!, /^schedule\.warmupSteps \d of 4 steps/);
    const message = /^schedule\.warmupSteps 8 is more than the run's 4 steps: .* end at 0\.5 and never reach 1$/;
    for (const type of types) assert.throws(() => problem(8, 4, type), { name: 'RangeError', message });
    for (const none of [problem(2, 4), problem(0, 1), problem(4, 4, 'constant')]) assert.equal(none, null);
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
