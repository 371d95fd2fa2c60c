// The planner with host memory: it offloads as few inputs as make a step fit, and none without.
import assert from 'node:assert/strict';
import { isDeepStrictEqual } from 'node:util';
import {
  decoderConfig,
  longestSteps,
  OutOfMemoryError,
  type PlanOptions,
  planStep,
  simulateStep,
} from '../../lib/index.ts';
import { policiesOf } from '../../lib/step/plan.ts';
import { stepFits } from '../../lib/step/simulate.ts';
import { tinyLlama } from '../support/runs.ts';

const L = 12;
const T = 2048;
const config = decoderConfig({ ...tinyLlama, num_hidden_layers: L });
const like = { kind: 'cpu', threads: 2 } as const;
const step = { B: 1, T, lora: { rank: 2 }, like } as const;
/** Bytes of one input. */
const each = T * tinyLlama.hidden_size * 4;
const plan = (options: Partial<PlanOptions> & { memoryLimit: number }) => planStep(config, { ...step, ...options });
const fixed = { recompute: 'layer', mlpSave: 'input' } as const;
/** What a step takes with K inputs in host memory. */
const reserved = (K: number) => {
  const policies = policiesOf(config, T, fixed, { T, hostMemoryLimit: 2 ** 30 });
  const policy = policies.find(({ offloadedInputs }) => offloadedInputs === L)!;
  return simulateStep({ config, ...step, policy: { ...policy, offloadedInputs: K } }).reservedBytes;
};

describe('planStep with host memory', () => {
  it('offloads the fewest inputs that make the step fit', () => {
    for (const K of [1, 4, 7]) {
      const memoryLimit = reserved(K);
      assert.ok(reserved(K - 1) > memoryLimit);
      const { policy, memory, before } = plan({ memoryLimit, hostMemoryLimit: 2 ** 30, fixed });
      assert.equal(policy.offloadedInputs, K);
      assert.equal(memory.hostBytes, K * each);
      assert.equal(memory.reservedBytes, memoryLimit);
      assert.equal(before!.offloadedInputs ?? 0, K - 1);
      assert.ok(simulateStep({ config, ...step, policy: before! }).reservedBytes > memoryLimit);
    }
  });

  it('offloads none where the step fits without, and none without host memory', () => {
    const { policy } = plan({ memoryLimit: reserved(0), hostMemoryLimit: 2 ** 30, fixed });
    assert.equal(policy.offloadedInputs, undefined);
    for (const policy of policiesOf(config, T, {}, { T })) assert.equal(policy.offloadedInputs, undefined);
    const some = plan({ memoryLimit: reserved(4), fixed: {} });
    assert.equal(some.policy.offloadedInputs, undefined);
    assert.equal(some.memory.hostBytes, 0);
  });

  it('before it takes more operations, and within the host memory that it may have', () => {
    const memoryLimit = reserved(6);
    const offloading = plan({ memoryLimit, hostMemoryLimit: 2 ** 30 });
    assert.ok(offloading.policy.offloadedInputs! > 0);
    assert.ok(['attention', 'layer'].includes(offloading.policy.recompute));
    for (const hostMemoryLimit of [0, each - 1, 2 * each, 5 * each + 1]) {
      const { policy, memory } = plan({ memoryLimit, hostMemoryLimit });
      assert.ok(memory.hostBytes <= hostMemoryLimit && memory.reservedBytes <= memoryLimit);
      assert.equal(memory.hostBytes, (policy.offloadedInputs ?? 0) * each);
    }
  });

  it('keeps a number that is fixed, and refuses it where nothing could be offloaded', () => {
    const limits = { memoryLimit: 2 ** 30, hostMemoryLimit: 2 ** 30 };
    assert.equal(plan({ ...limits, fixed: { ...fixed, offloadedInputs: 5 } }).policy.offloadedInputs, 5);
    assert.equal(plan({ ...limits, fixed: { ...fixed, offloadedInputs: 0 } }).policy.offloadedInputs, undefined);
    for (const recompute of [undefined, 'none', 'attentionSegments'] as const) {
      assert.throws(
        () => plan({ ...limits, fixed: { recompute, offloadedInputs: 5 } }),
        new RegExp(`RangeError: planStep: fixed.offloadedInputs 5 are those of .*, got ${recompute ?? 'auto'}$`),
      );
    }
    const short = { ...limits, hostMemoryLimit: 4 * each, fixed: { ...fixed, offloadedInputs: 5 } };
    assert.throws(() => plan(short), /out of host memory: .* do not fit in hostMemoryLimit/);
  });

  it('says that more host memory would help where it would', () => {
    const long = { ...step, T: 4 * T };
    const policies = policiesOf(config, long.T, fixed, { T: long.T, hostMemoryLimit: 2 ** 30 });
    const least = policies.map((policy) => simulateStep({ config, ...long, policy }).reservedBytes);
    const memoryLimit = Math.min(...least) - 2 ** 16;
    const more =
      /a shorter sequence \(T \d+ fits\), a larger hostMemoryLimit, dtype: 'bfloat16' or a larger memoryLimit/;
    for (const hostMemoryLimit of [undefined, 7 * 4 * each]) {
      assert.throws(() => plan({ T: long.T, memoryLimit, hostMemoryLimit, fixed }), more);
    }
    const message = (error: Error) => error instanceof OutOfMemoryError && !/hostMemoryLimit/.test(error.message);
    assert.throws(() => plan({ T: long.T, memoryLimit, hostMemoryLimit: 2 ** 30, fixed }), message);
  });

  it('has longer sequences', () => {
    const options = { B: 1, lora: step.lora, like, granule: 256, memoryLimit: reserved(4) };
    const without = longestSteps(config, options);
    const hostMemoryLimit = 8 * each;
    const found = longestSteps(config, { ...options, hostMemoryLimit });
    const plain = found.filter(({ rung }) => rung.offloadedInputs === undefined);
    assert.deepEqual(plain, without);
    const offloading = found.filter(({ rung }) => rung.offloadedInputs !== undefined);
    assert.ok(offloading.length >= 3);
    for (const { rung, T } of offloading) {
      const { offloadedInputs, ...rest } = rung;
      if (rest.recompute !== 'segments') {
        const same = without.find(({ rung }) => JSON.stringify(rung) === JSON.stringify(rest))!;
        assert.ok(T > same.T, `${JSON.stringify(rung)}: ${T} and ${same.T}`);
      }
      assert.ok(offloadedInputs! * T * tinyLlama.hidden_size * 4 <= hostMemoryLimit);
      const fits = (T: number) =>
        policiesOf(config, T, {}, { T, lora: step.lora, hostMemoryLimit })
          .filter(
            ({ mlpChunkSize, lossChunkSize, offloadedInputs = 0, ...rung }) =>
              offloadedInputs > 0 && isDeepStrictEqual(rung, rest),
          )
          .some((policy) => stepFits({ config, ...options, T, policy, hostMemoryLimit }));
      assert.equal(fits(T), true);
      assert.equal(fits(T + 256), false);
    }
  });
});
