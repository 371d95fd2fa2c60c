// The memory of a step is what `meta` says, to the byte, in every combination of what it depends on; and the process has no more.
import assert from 'node:assert/strict';
import { AdamW, Decoder, decoderConfig, TrainStep } from '../../lib/index.ts';
import { openTestDevice } from '../support/devices.ts';
import { product } from '../support/pairwise.ts';
import { integers } from '../support/random.ts';
import { tinyLlama } from '../support/runs.ts';
import {
  deviceOfStep,
  factors,
  isAllowed,
  nameOf,
  requirePlannedMemory,
  type StepChoice,
} from '../support/step_memory.ts';
import { mostMoreResident } from '../support/touched.ts';

/** Steps that run at the same time, so that no core waits for JavaScript. */
const AT_ONCE = 3;
/** What a process may have more of than the arena, in bytes. */
const MORE = 16 * 2 ** 20;

/** Weights in 4 bits have no gradients and no masters: there two dtypes are enough, and the pairs have the others. */
const isInProduct = (choice: StepChoice) =>
  isAllowed(choice) &&
  (!choice.adapters.endsWith('4 bits') || choice.dtype === 'float32' || choice.dtype === 'bfloat16');

describe('a step takes what meta says, to the byte, in every combination', () => {
  // The steps of all batches are those of one model.
  const all = product(factors, isInProduct).filter(({ batch }) => batch === factors.batch[0]);
  for (const rung of factors.rung) {
    const ofRung = all.filter((choice) => choice.rung === rung);
    it(`${JSON.stringify(rung)}: ${ofRung.length * factors.batch.length} steps`, async () => {
      assert.ok(ofRung.length > 240);
      const choices = ofRung.values();
      const worker = async () => {
        for (const choice of choices) {
          using device = deviceOfStep({ threads: 1 });
          await requirePlannedMemory(device, choice, factors.batch).catch((cause) => {
            throw new Error(nameOf(choice), { cause });
          });
        }
      };
      await Promise.all(Array.from({ length: AT_ONCE }, worker));
    });
  }
});

describe('the process', () => {
  it('takes no more than the arena, but for what libraries and JavaScript hold', async () => {
    const config = decoderConfig({
      ...tinyLlama,
      hidden_size: 256,
      intermediate_size: 704,
      num_hidden_layers: 4,
      vocab_size: 4096,
    });
    const [B, T] = [2, 2048];
    const policy = { mlpChunkSize: 512, lossChunkSize: 512, mlpSave: 'input', recompute: 'none' } as const;
    const ids = integers(B * T, 4096, 1);
    let reservedBytes = 0;
    const step = async () => {
      using device = openTestDevice();
      using model = new Decoder(config, { device }).initialize(1);
      using optimizer = new AdamW(model.trainableParameters(), { stateBits: 8 });
      using trainStep = new TrainStep(model, optimizer, { policy, inBackward: true });
      for (let i = 0; i < 2; i++) {
        assert.ok(
          Number.isFinite(await (await trainStep.run([{ inputs: ids, targets: ids, T }], { learningRate: 1e-3 })).loss),
        );
      }
      await device.synchronize();
      ({ reservedBytes } = device.memory());
    };
    await step(); // code, threads and workspaces of libraries are made now
    const most = await mostMoreResident(step);
    assert.ok(most <= reservedBytes + MORE, `${most} bytes, and the arena has ${reservedBytes}`);
    assert.ok(most >= 0.9 * reservedBytes, `${most} bytes, and the arena has ${reservedBytes}`);
  });
});
