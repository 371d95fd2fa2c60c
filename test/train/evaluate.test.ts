// The validation loss: a mean over targets, not over batches.
import assert from 'node:assert/strict';
import type { Dataset } from '../../lib/data/dataset.ts';
import { Decoder, decoderConfig, noGrad, plainPolicy, tensor, tidy } from '../../lib/index.ts';
import { evaluate } from '../../lib/train/evaluate.ts';
import { leavingNothing, openTestDevice } from '../support/devices.ts';
import { integers } from '../support/random.ts';
import { tinyLlama } from '../support/runs.ts';

const T = 16;
const LENGTH = 3;
const V = 256;
const policy = { mlpChunkSize: 7, lossChunkSize: 5, mlpSave: 'input', recompute: 'layer' } as const;

/** Three sequences, of which the last has one target alone. */
const inputs = Array.from({ length: LENGTH }, (_, i) => integers(T, V, i + 1));
const targets = inputs.map((ids, i) => ids.map((_, t) => (i === 2 && t !== 4 ? -100 : ids[(t + 1) % T]!)));

function dataset(asked: number[][]): Dataset {
  return {
    length: LENGTH,
    T,
    isPacked: false,
    extremes: { shortest: T, longest: T },
    batch: async (indices) => {
      asked.push([...indices]);
      const flat = (all: Int32Array[]) => Int32Array.from(indices.flatMap((i) => [...all[i]!]));
      const chosen = flat(targets);
      return {
        inputs: flat(inputs),
        targets: chosen,
        documentStart: null,
        B: indices.length,
        T,
        length: T,
        numTargets: chosen.filter((id) => id >= 0).length,
      };
    },
  };
}

/** -log p of every target, from the model's logits, in f64 on the host. */
async function lossesOf(model: Decoder): Promise<number[]> {
  const losses: number[] = [];
  for (const [i, ids] of inputs.entries()) {
    const { device } = model;
    using logits = noGrad(() =>
      tidy(() => {
        const on = { device };
        return model.logits({ inputs: tensor(ids, on), targets: tensor(ids, on), T }, plainPolicy(T));
      }),
    );
    const z = await logits.toFloat32();
    for (const [t, id] of targets[i]!.entries()) {
      if (id < 0) continue;
      const row = z.subarray(t * V, (t + 1) * V);
      losses.push(Math.log(row.reduce((sum, value) => sum + Math.exp(value), 0)) - row[id]!);
    }
  }
  return losses;
}

describe('evaluate', () => {
  it('is the mean over all targets, however they are batched', async () => {
    using device = openTestDevice();
    using model = new Decoder(decoderConfig(tinyLlama), { device }).initialize(1);
    const losses = await lossesOf(model);
    assert.equal(losses.length, 2 * T + 1);
    const mean = losses.reduce((a, b) => a + b) / losses.length;
    for (const batchSize of [1, 2, 5]) {
      const asked: number[][] = [];
      const found = await leavingNothing(device, () => evaluate(model, dataset(asked), { policy, batchSize }));
      assert.deepEqual(asked.flat(), [0, 1, 2]);
      assert.ok(Math.abs(found!.validationLoss - mean) < 1e-5, `${found!.validationLoss} against ${mean}`);
      assert.equal(found!.perplexity, Math.exp(found!.validationLoss));
    }
    for (const parameter of model.trainableParameters()) assert.equal(parameter.grad, null);
  });

  it('stops between two batches', async () => {
    using device = openTestDevice();
    using model = new Decoder(decoderConfig(tinyLlama), { device }).initialize(1);
    const controller = new AbortController();
    const asked: number[][] = [];
    const whole = dataset(asked);
    const stopping: Dataset = {
      ...whole,
      batch: (indices) => {
        controller.abort();
        return whole.batch(indices);
      },
    };
    const { signal } = controller;
    assert.equal(await evaluate(model, stopping, { policy, batchSize: 1, signal }), null);
    assert.deepEqual(asked, [[0]]);
  });
});
