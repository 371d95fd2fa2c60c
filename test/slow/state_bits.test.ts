// Optimizer states in bf16 and in 8 bits: losses are those of f32 states within 1 % over 20 steps of every family, and within the noise of
// seeds over 500.
import assert from 'node:assert/strict';
import { basename } from 'node:path';
import type { StateBits } from '../../lib/index.ts';
import { openTestDevice } from '../support/devices.ts';
import { parityCases, trainingLosses } from '../support/parity.ts';
import { parityPolicies } from '../support/parity_tests.ts';
import { linesOf, newFolder, run, textFile, tinyLlama } from '../support/runs.ts';

const SEEDS = [1, 2, 3, 4];
const STEPS = 500;
/** Losses that are averaged: the last ones. */
const LAST = 100;

/** A text of words in random order, of which no model learns the order. */
function words(): string {
  const list = 'the quick brown fox jumps over lazy dogs while seven wizards box with jugs of liquor'.split(' ');
  let state = 7;
  const next = () => {
    state = (state * 48271) % 2147483647;
    return list[state % list.length]!;
  };
  return Array.from({ length: 20_000 }, next).join(' ');
}

describe('a run of 500 steps', () => {
  it('has the loss of f32 states with bf16 and 8-bit ones, within the noise of seeds', async () => {
    const data = { files: [textFile(words())] };
    const model = { config: { ...tinyLlama, hidden_size: 64, intermediate_size: 176 } };
    const lossOf = async (stateBits: StateBits, seed: number) => {
      const outDir = newFolder();
      const optimizer = { learningRate: 3e-3, stateBits };
      await run({ data, model, maxSteps: STEPS, seed, optimizer, threads: 1, outDir });
      const losses = ((await linesOf(outDir)) as { loss?: number }[]).flatMap(({ loss }) => loss ?? []);
      assert.equal(losses.length, STEPS);
      return losses.slice(-LAST).reduce((sum, loss) => sum + loss, 0) / LAST;
    };
    const means = new Map<StateBits, number[]>();
    for (const bits of [32, 16, 8] as const)
      means.set(bits, await Promise.all(SEEDS.map((seed) => lossOf(bits, seed))));
    const wide = means.get(32)!;
    const mean = (values: readonly number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
    const noise = Math.sqrt(mean(wide.map((loss) => (loss - mean(wide)) ** 2)) * (SEEDS.length / (SEEDS.length - 1)));
    for (const bits of [16, 8] as const) {
      const off = mean(means.get(bits)!) - mean(wide);
      const text = `${bits} bits: ${off} off, deviation of seeds ${noise}: ${JSON.stringify([...means])}`;
      assert.ok(Math.abs(off) < noise, text);
    }
  });
});

describe('20 steps of a parity case', () => {
  const policy = parityPolicies['everything saved, whole']!;
  for (const folder of parityCases('test/fixtures/parity')) {
    it(`have the losses of f32 states within 1 % with bf16 and 8-bit ones: ${basename(folder)}`, async () => {
      using device = openTestDevice();
      const wide = await trainingLosses(folder, device, policy, 32);
      assert.ok(wide.length >= 20);
      for (const bits of [16, 8] as const) {
        const losses = await trainingLosses(folder, device, policy, bits);
        assert.notDeepEqual(losses, wide);
        for (const [i, loss] of losses.entries()) {
          const off = Math.abs(loss / wide[i]! - 1);
          assert.ok(off <= 0.01, `${bits} bits: step ${i + 1}: loss ${loss}, with f32 states ${wide[i]}`);
        }
      }
    });
  }
});
