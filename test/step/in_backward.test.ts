// The optimizer step inside the backward: the ordinary step's numbers, the planned memory, clipping.
import assert from 'node:assert/strict';
import { AdamW, Decoder, decoderConfig, simulateStep, TrainStep, type TrainStepOptions } from '../../lib/index.ts';
import { openTestDevice } from '../support/devices.ts';
import {
  batchOf,
  bytesOf,
  C,
  cases,
  configOf,
  F,
  Factored,
  fields,
  INFINITE,
  lora,
  policy,
  T,
  tensorsOf,
  threeSteps,
  V,
  Watched,
  withStep,
} from '../support/in_backward.ts';

describe('the optimizer step in the backward', () => {
  for (const [name, of] of Object.entries(cases)) {
    it(`is the ordinary step bit for bit, without clipping: ${name}`, async () => {
      assert.deepEqual(await threeSteps({ inBackward: true }, of), await threeSteps({}, of));
    });

    it(`takes the planned memory to the byte: ${name}`, async () => {
      await withStep(
        { inBackward: true },
        async (step, model) => {
          const { device } = model;
          const config = configOf(of);
          const simulated = simulateStep({
            config,
            B: 1,
            T,
            like: device.target,
            inBackward: true,
            policy,
            ...of,
            lora: of.lora ? lora : null,
          });
          for (const seed of [1, 3]) {
            device.arena.resetPeak();
            await (await step.run([batchOf(seed, of.isPacked)], { learningRate: 1e-3 })).loss;
            const { peakBytes, reservedBytes, peak, live } = device.memory();
            assert.deepEqual(
              { peakBytes, reservedBytes, peak, live },
              {
                peakBytes: simulated.peakBytes,
                reservedBytes: simulated.reservedBytes,
                peak: simulated.peak,
                live: simulated.live,
              },
            );
          }
        },
        of,
      );
    });
  }

  it('has the gradients of one group at a time', () => {
    const config = (tied: boolean) => decoderConfig({ ...fields, num_hidden_layers: 6, tie_word_embeddings: tied });
    const gradients = (tied: boolean, inBackward: boolean) => {
      const step = { B: 1, T, like: { kind: 'cpu', threads: 2 }, policy, inBackward } as const;
      return simulateStep({ config: config(tied), ...step }).peak.gradient;
    };
    const ofMlp = 4 * 3 * F * C;
    assert.ok(gradients(false, true) <= Math.max(ofMlp, 4 * V * C), `${gradients(false, true)}`);
    assert.ok(gradients(true, true) <= ofMlp + 4 * V * C, `${gradients(true, true)}`); // the head's until the embedding
    assert.ok(gradients(false, false) > 6 * ofMlp);
  });

  describe('clipping', () => {
    const maxGradNorm = 0.05;
    const clip = (norm: number) => Math.min(1, maxGradNorm / (norm + 1e-6));

    /** For each of two steps the factors on gradients, their sums of squares and the norm. */
    async function factorsOf(options: TrainStepOptions) {
      using device = openTestDevice();
      using model = new Decoder(decoderConfig(fields), { device }).initialize(1);
      using inner = new AdamW(model.trainableParameters());
      const optimizer = new Watched(inner);
      using step = new TrainStep(model, optimizer, { policy, maxGradNorm, ...options });
      const steps = [];
      for (const seed of [1, 3]) {
        const { gradNorm, squares } = await step.run([batchOf(seed)], { learningRate: 1e-3 });
        const factors = await Promise.all(optimizer.factors);
        steps.push({ factors, squares: Array.from(await squares()), norm: await gradNorm });
      }
      return steps;
    }
    const isNear = (actual: readonly number[], expected: readonly number[]) => {
      assert.equal(actual.length, expected.length);
      for (const [i, value] of actual.entries()) {
        assert.ok(Math.abs(value / expected[i]! - 1) < 1e-6, `${value}, ${expected[i]}`);
      }
    };
    const own = (squares: readonly number[]) => squares.map((square) => clip(Math.sqrt(square)));

    it("by 'parameter' is by each gradient's own norm, in the backward or not", async () => {
      for (const inBackward of [true, false]) {
        for (const { factors, squares } of await factorsOf({ clipping: 'parameter', inBackward })) {
          isNear(factors, own(squares));
          assert.ok(factors.some((factor) => factor < 1) && new Set(factors).size > 5, String(factors));
        }
      }
      const of = { clipping: 'parameter', maxGradNorm } as const;
      assert.deepEqual(await threeSteps({ ...of, inBackward: true }, {}), await threeSteps(of, {}));
    });

    it("by 'previous', the default, is by the norm of the step before, the first by parameter", async () => {
      const [first, second] = await factorsOf({ inBackward: true });
      isNear(first!.factors, own(first!.squares));
      assert.ok(clip(first!.norm) < 1);
      isNear(
        second!.factors,
        second!.squares.map(() => clip(first!.norm)),
      );
      isNear([second!.norm], [Math.sqrt(second!.squares.reduce((sum, square) => sum + square, 0))]);
    });

    it('is none by name and with maxGradNorm 0', async () => {
      for (const options of [{ clipping: 'none' }, { maxGradNorm: 0 }] as const) {
        for (const { factors } of await factorsOf({ ...options, inBackward: true })) {
          assert.ok(factors.every((factor) => factor === 1));
        }
      }
      assert.deepEqual(await threeSteps({ clipping: 'none', maxGradNorm: 1e-3 }, {}), await threeSteps({}, {}));
    });

    it("by 'previous' goes on exactly with previousNorm, which keeps the last finite norm", async () => {
      const runSteps = async (split: boolean) => {
        using device = openTestDevice();
        using model = new Decoder(decoderConfig(fields), { device }).initialize(1);
        using optimizer = new AdamW(model.trainableParameters());
        const objective = new Factored();
        const options = { policy, objective, maxGradNorm, inBackward: true };
        let step = new TrainStep(model, optimizer, options);
        assert.equal(await step.previousNorm(), null);
        for (const seed of [1, 3, 5, 7]) {
          objective.factor = seed === 3 ? INFINITE : 1;
          const before = await step.previousNorm();
          const { gradNorm } = await step.run([batchOf(seed)], { learningRate: 1e-2, step: seed });
          assert.equal(await step.previousNorm(), seed === 3 ? before : await gradNorm);
          if (!split || seed === 7) continue;
          const previousNorm = JSON.parse(JSON.stringify(await step.previousNorm()));
          step.dispose();
          step = new TrainStep(model, optimizer, { ...options, previousNorm });
        }
        step.dispose();
        return await bytesOf(tensorsOf(model, optimizer));
      };
      assert.deepEqual(await runSteps(true), await runSteps(false));
    });
  });
});
