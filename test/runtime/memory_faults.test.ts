// What fails to be made frees what it had made: each allocation in turn is refused, and the arena is as it was.
import assert from 'node:assert/strict';
import { readdirSync } from 'node:fs';
import {
  AdamW,
  addLora,
  clipGradNorm,
  Decoder,
  type Device,
  type Dtype,
  decoderConfig,
  KeyValueCache,
  loadAdapter,
  loadModel,
  mergeLora,
  nextTokenLoss,
  OutOfMemoryError,
  plainPolicy,
  saveAdapter,
  Tape,
  TrainStep,
  tensor,
  tidy,
} from '../../lib/index.ts';
import { clippedNorm } from '../../lib/optim/clip.ts';
import { openTestDevice } from '../support/devices.ts';
import { copyOf, parity } from '../support/folders.ts';
import { newFolder, tinyLlama } from '../support/runs.ts';

const T = 8;
const policy = { mlpChunkSize: 4, lossChunkSize: 4, mlpSave: 'input', recompute: 'attention' } as const;

function batchOf(device: Device) {
  const ids = Int32Array.from({ length: T }, (_, i) => i * 3);
  return { inputs: tensor(ids, { device }), targets: tensor(ids, { device }), T };
}

/** Calls `fn` with the k-th allocation refused, for k = 0, 1, … until it succeeds; each time nothing may be left. Returns how many failed. */
async function refuseEach(device: Device, fn: () => unknown): Promise<number> {
  const { arena } = device;
  const allocate = arena.allocate.bind(arena);
  try {
    for (let k = 0; ; k++) {
      let left = k;
      arena.allocate = (bytes, category) => {
        if (left-- === 0) {
          const details = { requestedBytes: bytes, limitBytes: 0, breakdown: device.memory().live };
          throw new OutOfMemoryError('refused by the test', details);
        }
        return allocate(bytes, category);
      };
      const before = device.memory().liveBytes;
      try {
        await fn();
        assert.ok(left >= 0, 'an allocation was refused, and nobody was told');
        return k;
      } catch (error) {
        if (!(error instanceof OutOfMemoryError)) throw error;
        assert.equal(device.memory().liveBytes, before, `allocation ${k} was refused: bytes are left`);
      }
      await device.synchronize();
    }
  } finally {
    arena.allocate = allocate;
  }
}

function disposeAll(tensors: object): void {
  for (const each of Object.values(tensors)) each.dispose();
}

const families = {
  llama: tinyLlama,
  qwen2: { ...tinyLlama, model_type: 'qwen2', tie_word_embeddings: true },
  qwen3: { ...tinyLlama, model_type: 'qwen3', head_dim: 16 },
  gemma2: { ...tinyLlama, model_type: 'gemma2', head_dim: 16, tie_word_embeddings: true },
};

describe('an allocation that is refused leaves nothing behind', () => {
  for (const [name, source] of Object.entries(families)) {
    it(`Decoder: ${name}`, async () => {
      using device = openTestDevice();
      let model: Decoder | null = null;
      const failed = await refuseEach(device, () => {
        model = new Decoder(decoderConfig(source), { device, dtype: 'bfloat16' });
      });
      assert.ok(failed > 15, `${failed} allocations`);
      model!.dispose();
      assert.equal(device.memory().liveBytes, 0);
    });
  }

  for (const dtype of ['float32', 'bfloat16'] as Dtype[]) {
    it(`AdamW, clippedNorm and TrainStep: ${dtype}`, async () => {
      using device = openTestDevice();
      using model = new Decoder(decoderConfig(tinyLlama), { device, dtype });
      const parameters = model.trainableParameters();
      let optimizer: AdamW | null = null;
      const failed = await refuseEach(device, () => {
        optimizer = new AdamW(parameters);
      });
      assert.equal(failed, 1 + parameters.length * (dtype === 'bfloat16' ? 3 : 2));
      await refuseEach(device, () => new TrainStep(model, optimizer!).dispose());
      optimizer!.dispose();
      assert.ok(parameters.every(({ master }) => master === null));
      await refuseEach(device, () => disposeAll(clippedNorm(parameters)));
    });
  }

  it('loadModel, in one file and of another dtype', async () => {
    using device = openTestDevice();
    for (const [folder, dtype] of [
      [parity('llama')],
      [parity('gemma2')],
      [await copyOf('qwen2', () => ({ dtype: 'F16' })), 'bfloat16'],
    ] as [string, Dtype?][]) {
      const handles = readdirSync('/proc/self/fd').length;
      await refuseEach(device, async () => (await loadModel(folder, { device, dtype })).dispose());
      await new Promise(setImmediate);
      assert.ok(readdirSync('/proc/self/fd').length <= handles, 'files are left open');
      assert.equal(device.memory().liveBytes, 0);
    }
  });

  it('addLora, loadAdapter, mergeLora, untieHead', async () => {
    using device = openTestDevice();
    using model = new Decoder(decoderConfig({ ...tinyLlama, tie_word_embeddings: true }), { device }).initialize(1);
    const remove = () => {
      for (const { a, b } of model.lora!.adapters.values()) for (const each of [a, b]) each.dispose();
      model.lora = null;
    };
    const folder = newFolder();
    assert.equal(await refuseEach(device, () => addLora(model, { rank: 2 })), 28);
    await saveAdapter(model, folder);
    remove();
    await refuseEach(device, () => loadAdapter(model, folder));
    await refuseEach(device, () => mergeLora(model));
    assert.equal(model.lora, null);
    await refuseEach(device, () => model.untieHead());
  });

  it('KeyValueCache and decode', async () => {
    using device = openTestDevice();
    using model = new Decoder(decoderConfig(tinyLlama), { device }).initialize(1);
    await refuseEach(device, () => new KeyValueCache(model, 8).dispose());
    await refuseEach(device, async () => {
      using cache = new KeyValueCache(model, 8);
      await model.decode(Int32Array.of(1, 2, 3), cache);
    });
  });

  for (const recompute of ['none', 'attention', 'layer'] as const) {
    it(`a training step, which updates nothing: recompute ${recompute}`, async () => {
      using device = openTestDevice();
      using model = new Decoder(decoderConfig(families.gemma2), { device, dtype: 'bfloat16' }).initialize(1);
      using optimizer = new AdamW(model.trainableParameters());
      using step = new TrainStep(model, optimizer, { policy: { ...policy, recompute } });
      const ids = Int32Array.from({ length: T }, (_, i) => i * 3);
      const batches = [0, 1].map(() => ({ inputs: ids, targets: ids }));
      const before = await Promise.all(model.parameters().map((parameter) => parameter.data()));
      const failed = await refuseEach(device, async () => {
        const same = await Promise.all(model.parameters().map((parameter) => parameter.data()));
        assert.deepEqual(same, before);
        await step.run(batches, { learningRate: 1e-2 });
      });
      assert.ok(failed > 100, `${failed} allocations`);
    });
  }

  it('a forward on a tape that is given up, logits, clipGradNorm', async () => {
    using device = openTestDevice();
    using model = new Decoder(decoderConfig(tinyLlama), { device }).initialize(1);
    await refuseEach(device, () =>
      tidy(() => {
        const tape = new Tape();
        const loss = tape.run(() => nextTokenLoss(model, batchOf(device), { policy }).loss);
        try {
          tape.backward(loss);
          disposeAll(clipGradNorm(model.parameters(), 1));
        } finally {
          model.zeroGrad();
        }
      }),
    );
    await refuseEach(device, () => tidy(() => model.logits(batchOf(device), plainPolicy(T)).dispose()));
  });
});
