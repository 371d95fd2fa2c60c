// States of AdamW in 16 and 8 bits: what they take, how a model trains with them, resume.
import assert from 'node:assert/strict';
import {
  AdamW,
  memory,
  Parameter,
  parseConfig,
  type StateBits,
  type StepMetrics,
  tensor,
  train,
  zeros,
} from '../../lib/index.ts';
import { debugDevice, hasFloat64, leavingNothing } from '../support/devices.ts';
import { tinyLlama, tinyRun } from '../support/runs.ts';

const model = { config: { ...tinyLlama, hidden_size: 64, intermediate_size: 96 } };

const run = (stateBits: StateBits, options: Parameters<typeof tinyRun>[0] = {}) =>
  parseConfig(
    tinyRun({ model, optimizer: { learningRate: 3e-3, beta2: 0.999, stateBits }, maxSteps: 20, epochs: 9, ...options }),
  );

const lossesOf = (metrics: readonly StepMetrics[]) => metrics.map(({ loss }) => loss);

describe('states of AdamW', () => {
  it('take 8, 4 and 2.03 bytes a parameter; vectors and small tensors keep f32', () =>
    leavingNothing(debugDevice(), async () => {
      const device = debugDevice();
      for (const [stateBits, bytes] of [
        [32, 8 * 65_536],
        [16, 4 * 65_536],
        [8, 2 * 65_536 + (2 * 4 * 65_536) / 256],
      ] as const) {
        const shapes = [[256, 256], [65_536], [63, 65]];
        const parameters = shapes.map((shape) => new Parameter(zeros(shape, { device })));
        using optimizer = new AdamW(parameters, { stateBits });
        const dtypes = new Map([...optimizer.state()].map(([name, { dtype }]) => [name, dtype]));
        assert.equal(dtypes.get('0.v'), { 32: 'float32', 16: 'bfloat16', 8: 'uint8' }[stateBits]);
        assert.equal(dtypes.get('1.v'), 'float32');
        assert.equal(dtypes.get('2.v'), 'float32');
        const ofFirst = [...optimizer.state()].filter(([name]) => name.startsWith('0.'));
        assert.equal(
          ofFirst.reduce((sum, [, { sizeBytes }]) => sum + sizeBytes, 0),
          bytes,
        );
        assert.ok(memory(device).live.optimizer >= bytes);
        for (const parameter of parameters) parameter.dispose();
      }
    }));

  it('refuse other numbers of bits, and float64', () => {
    using parameter = new Parameter(tensor([1, 2], { device: debugDevice() }));
    assert.throws(() => new AdamW([parameter], { stateBits: 4 as StateBits }), /stateBits must be 32, 16 or 8, got 4/);
    if (!hasFloat64) return;
    using wide = new Parameter(zeros([64, 64], { dtype: 'float64', device: debugDevice() }));
    assert.throws(() => new AdamW([wide], { stateBits: 8 }), /stateBits 8 .* one is float64/);
  });

  for (const dtype of ['float32', 'bfloat16'] as const) {
    it(`train as f32 states do, within 1 %, in ${dtype}`, async () => {
      const expected = lossesOf((await train(run(32, { dtype }))).metrics);
      for (const stateBits of [16, 8] as const) {
        const losses = lossesOf((await train(run(stateBits, { dtype }))).metrics);
        assert.equal(losses.length, 20);
        assert.notDeepEqual(losses, expected);
        losses.forEach((loss, i) => {
          assert.ok(
            Math.abs(loss / expected[i]! - 1) < 0.01,
            `step ${i + 1}, ${stateBits} bits: ${loss}, ${expected[i]}`,
          );
        });
      }
      assert.ok(expected.at(-1)! < expected[0]! / 2);
    });
  }

  it('continue from a checkpoint bit for bit', async () => {
    for (const stateBits of [16, 8] as const) {
      const whole = run(stateBits, { maxSteps: 6 });
      const expected = lossesOf((await train(whole)).metrics);
      const parts = { ...run(stateBits, { maxSteps: 3, data: whole.data, checkpoint: { everySteps: 3 } }) };
      await train(parts);
      const { metrics } = await train({ ...parts, maxSteps: 6 }, { resume: true });
      assert.deepEqual(lossesOf(metrics), expected);
    }
  });
});
