// The planner: the first policy in its order whose step fits, at every limit.
import assert from 'node:assert/strict';
import {
  decoderConfig,
  OutOfMemoryError,
  planStep,
  type StepPolicy,
  simulateStep,
  stepOperations,
} from '../../lib/index.ts';
import { policiesOf } from '../../lib/step/plan.ts';
import { tinyLlama } from '../support/runs.ts';

const config = decoderConfig(tinyLlama);
const shape = { B: 1, T: 16384, like: { kind: 'cpu', threads: 2 } } as const;

const of = (attentionHeadGroups?: number) => (attentionHeadGroups ? { attentionHeadGroups } : {});
/** Every policy that is tried: the fewest operations first, among equals larger chunks first. */
const order: StepPolicy[] = [
  ...(
    [
      ['gateUp', 'none'],
      ['input', 'none'],
      ['input', 'attention'],
      ['input', 'layer'],
      ['input', 'layer', 2],
    ] as const
  ).flatMap(([mlpSave, recompute, groups]) =>
    [8192, 2048, 1024].map((size) => ({ mlpChunkSize: size, lossChunkSize: size, mlpSave, recompute, ...of(groups) })),
  ),
  ...[512, 256, 128].map(
    (size) => ({ mlpChunkSize: size, lossChunkSize: size, mlpSave: 'input', recompute: 'layer', ...of(2) }) as const,
  ),
];
const bytes = order.map((policy) => simulateStep({ config, ...shape, policy }).reservedBytes);

describe('planStep', () => {
  it('takes the first policy that fits, at the limit of each', () => {
    const reached = new Set<string>();
    for (const memoryLimit of bytes) {
      const expected = order[bytes.findIndex((each) => each <= memoryLimit)]!;
      const { policy, memory } = planStep(config, { ...shape, memoryLimit });
      assert.deepEqual(policy, expected, `at ${memoryLimit} bytes`);
      assert.ok(memory.reservedBytes <= memoryLimit);
      reached.add([policy.mlpSave, policy.recompute, ...(policy.attentionHeadGroups ? ['in groups'] : [])].join(' '));
    }
    // the limits tell all levels apart
    const all = ['gateUp none', 'input attention', 'input layer', 'input layer in groups', 'input none'];
    assert.deepEqual([...reached].sort(), all);
  });

  it('says what a step takes where none fits', () => {
    assert.throws(
      () => planStep(config, { ...shape, memoryLimit: Math.min(...bytes) - 2 ** 20 }),
      (error) => error instanceof OutOfMemoryError && /a step takes at least/.test(error.message),
    );
  });

  it('says the longest T that would fit, with what is fixed', () => {
    const fixed = { recompute: 'none' } as const;
    for (const memoryLimit of [12 * 2 ** 20, 24 * 2 ** 20]) {
      let longest = 0;
      assert.throws(
        () => planStep(config, { ...shape, memoryLimit, fixed }),
        (error) => {
          longest = Number(/a shorter sequence \(T (\d+) fits\)/.exec((error as Error).message)![1]);
          return error instanceof OutOfMemoryError;
        },
      );
      assert.ok(longest > 0 && longest < shape.T);
      planStep(config, { ...shape, T: longest, memoryLimit, fixed });
      assert.throws(() => planStep(config, { ...shape, T: longest + 1024, memoryLimit, fixed }), OutOfMemoryError);
    }
  });

  it('names no T if not even one token fits', () => {
    assert.throws(
      () => planStep(config, { ...shape, memoryLimit: 2 ** 18 }),
      (error) => !/ fits\)/.test((error as Error).message),
    );
  });

  it('does not change options that are fixed', () => {
    const fixed = { mlpChunkSize: 100, recompute: 'layer' } as const;
    const { policy } = planStep(config, { ...shape, memoryLimit: Infinity, fixed });
    assert.deepEqual(policy, { ...order[0], ...fixed });
  });

  it('tries what takes fewer operations first: segments that keep attention before layers that run it again, where T is long', () => {
    const deep = decoderConfig({ ...tinyLlama, num_hidden_layers: 7 });
    const isFirst = new Set<boolean>();
    for (const T of [64, 8192]) {
      const policies = policiesOf(deep, T);
      const totals = policies.map((policy) => stepOperations(deep, { B: 1, T, policy }).total);
      assert.deepEqual(
        totals.slice(0, -3),
        totals.slice(0, -3).sort((a, b) => a - b),
      );
      const { recompute, slots } = policies.at(-1)!; // small chunks of the smallest
      assert.deepEqual([recompute, slots], ['segments', 4]);
      const whats = policies.map(({ recompute }) => recompute);
      isFirst.add(whats.lastIndexOf('attentionSegments') < whats.indexOf('layer'));
    }
    assert.deepEqual(isFirst, new Set([false, true]));
  });

  it('gives slots to segments alone, and to those that are fixed', () => {
    const deep = decoderConfig({ ...tinyLlama, num_hidden_layers: 7 });
    for (const { recompute, slots } of policiesOf(deep, 2048)) {
      assert.equal(slots !== undefined, recompute === 'segments' || recompute === 'attentionSegments', recompute);
    }
    for (const policy of policiesOf(deep, 2048, { recompute: 'segments' })) {
      assert.ok(policy.recompute === 'segments' && policy.slots! >= 4);
    }
    for (const policy of policiesOf(deep, 2048, { recompute: 'segments', slots: 5 })) assert.equal(policy.slots, 5);
    for (const recompute of ['segments', 'attentionSegments'] as const) {
      const { policy } = planStep(config, { ...shape, memoryLimit: Infinity, fixed: { recompute } });
      assert.deepEqual([policy.recompute, policy.slots], [recompute, 2], 'two layers');
    }
    assert.throws(
      () => planStep(deep, { ...shape, memoryLimit: Infinity, fixed: { recompute: 'segments', slots: 3 } }),
      /7 layers need 4 to 7 slots, got 3/,
    );
  });

  it('has segments keep attention where their slots suffice, and where nothing goes to the host no others there', () => {
    const deep = decoderConfig({ ...tinyLlama, num_hidden_layers: 12 });
    const slotsOf = (fixed: Partial<StepPolicy>, offloads = false) => {
      const segments = policiesOf(deep, 2048, fixed, { hostMemoryLimit: offloads ? 2 ** 30 : 0 }).filter(
        ({ recompute, attentionHeadGroups, offloadedInputs = 0 }) =>
          recompute === 'segments' && !attentionHeadGroups && offloadedInputs > 0 === offloads,
      );
      const of = (keeps: boolean) => segments.filter(({ keepAttention = false }) => keepAttention === keeps);
      return [true, false].map((keeps) => [...new Set(of(keeps).map(({ slots }) => slots))]);
    };
    assert.deepEqual(slotsOf({}), [[9, 6], [5]]);
    assert.deepEqual(slotsOf({}, true), [
      [9, 6],
      [9, 6, 5],
    ]);
    assert.deepEqual(slotsOf({ recompute: 'segments', keepAttention: false }), [[], [9, 6, 5]]);
    assert.deepEqual(slotsOf({ recompute: 'segments', keepAttention: true }), [[9, 6], []]);
    assert.deepEqual(slotsOf({ recompute: 'segments', slots: 6 }), [[6], [6]]);
    assert.deepEqual(slotsOf({ recompute: 'segments', slots: 5 }), [[], [5]]);
    const options = { ...shape, memoryLimit: Infinity };
    const fixed = { recompute: 'segments', slots: 6, keepAttention: true } as const;
    const nothing = { ...shape, memoryLimit: 12 * 2 ** 20, fixed } as const;
    assert.throws(() => planStep(deep, nothing), /leaving recompute, slots, keepAttention to the planner/);
    assert.throws(
      () => planStep(deep, { ...options, fixed: { ...fixed, slots: 5 } }),
      /12 layers need 6 to 12 slots, got 5/,
    );
    for (const recompute of [undefined, 'layer', 'attentionSegments'] as const) {
      assert.throws(
        () => planStep(deep, { ...options, fixed: { recompute, keepAttention: true } }),
        new RegExp(`RangeError: planStep: fixed.keepAttention is that of .*, got ${recompute ?? 'auto'}$`),
      );
    }
  });

  it('refuses slots without a recompute that has them', () => {
    for (const recompute of [undefined, 'layer', 'none', 'attention'] as const) {
      assert.throws(
        () => planStep(config, { ...shape, memoryLimit: Infinity, fixed: { recompute, slots: 2 } }),
        new RegExp(`RangeError: planStep: fixed.slots 2 are those of .*, got ${recompute ?? 'auto'}$`),
      );
    }
  });
});
