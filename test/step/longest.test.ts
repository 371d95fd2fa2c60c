// The longest T of each rung fits, and one granule more does not.
import assert from 'node:assert/strict';
import { decoderConfig, longestSteps, type Rung } from '../../lib/index.ts';
import { longestFit } from '../../lib/step/longest_fit.ts';
import { policiesOf } from '../../lib/step/plan.ts';
import { stepFits } from '../../lib/step/simulate.ts';
import { tinyLlama } from '../support/runs.ts';

describe('longestFit', () => {
  it('finds the boundary from any guess', () => {
    for (const boundary of [0, 1, 2, 7, 8, 40, 99, 100]) {
      for (const guess of [1, 5, 39, 41, 100, 1000]) {
        let tries = 0;
        const fits = (length: number) => {
          tries += 1;
          assert.ok(length >= 4 && length <= 400 && length % 4 === 0, `${length} is tried`);
          return length <= 4 * boundary;
        };
        assert.equal(longestFit(fits, { guess: 4 * guess, granule: 4, most: 403 }), 4 * boundary);
        assert.ok(tries <= 14, `${tries} tries for ${boundary} from ${guess}`);
      }
    }
  });

  it('where memory does not only grow with the length: one that fits, before one that does not', () => {
    const fits = (length: number) => length <= 20 || (length >= 30 && length <= 50);
    for (const guess of [1, 15, 25, 40, 60, 90]) {
      const found = longestFit(fits, { guess, granule: 1, most: 100 });
      assert.ok(fits(found) && !fits(found + 1), `${found} from ${guess}`);
    }
  });
});

describe('longestSteps', () => {
  const config = decoderConfig(tinyLlama);
  const options = { B: 2, like: { kind: 'cpu', threads: 2 }, memoryLimit: 32 * 2 ** 20, granule: 256 } as const;

  /** Whether the planner has a policy of this rung that fits. */
  const anyFits = (rung: Rung, T: number) =>
    policiesOf(config, options.B * T)
      .filter((policy) =>
        (['mlpSave', 'recompute', 'slots', 'attentionHeadGroups'] as const).every(
          (name) => policy[name] === rung[name],
        ),
      )
      .some((policy) => stepFits({ config, ...options, T, policy }));

  it('each fits with its rung, and one granule more does not', () => {
    const found = longestSteps(config, options);
    assert.ok(found.length >= 4);
    for (const { rung, T } of found) {
      assert.ok(T > 0 && T % 256 === 0);
      assert.equal(anyFits(rung, T), true);
      assert.equal(anyFits(rung, T + 256), false);
    }
    const lengths = found.slice(0, 4).map(({ T }) => T);
    assert.deepEqual(
      lengths,
      [...lengths].sort((a, b) => a - b),
      'rungs with more operations are longer',
    );
    assert.deepEqual(longestSteps(config, options), found);
  });

  it('tries only policies with the fixed options', () => {
    const found = longestSteps(config, { ...options, fixed: { recompute: 'layer', mlpSave: 'input' } });
    assert.deepEqual(
      found.map(({ rung }) => rung),
      [
        { mlpSave: 'input', recompute: 'layer' },
        { mlpSave: 'input', recompute: 'layer', attentionHeadGroups: 2 },
      ],
    );
  });

  it('0 where not even one granule fits; refuses a limit that bounds nothing', () => {
    assert.deepEqual(
      new Set(longestSteps(config, { ...options, memoryLimit: 2 ** 16 }).map(({ T }) => T)),
      new Set([0]),
    );
    assert.throws(() => longestSteps(config, { ...options, memoryLimit: Infinity }), /memoryLimit must be a finite/);
  });
});
