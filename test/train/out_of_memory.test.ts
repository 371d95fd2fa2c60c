// Memory that runs out between steps: an error that says so, nothing lost, and a step that fits succeeds.
import assert from 'node:assert/strict';
import { readdir } from 'node:fs/promises';
import { join } from 'node:path';
import {
  type AdamW,
  type Decoder,
  type Device,
  empty,
  OutOfMemoryError,
  type Tensor,
  type TrainStep,
  type TrainStepOptions,
  tidy,
} from '../../lib/index.ts';
import { openTestDevice } from '../support/devices.ts';
import { batchOf, bytesOf, MEMORY_LIMIT, policy, T, tensorsOf, withStep } from '../support/in_backward.ts';
import { linesOf, modelOf, newFolder, run } from '../support/runs.ts';

/** Takes all of the memory that a device of this limit has left but for so many bytes. */
function fillUp(device: Device, left: number): Tensor {
  const { liveBytes } = device.memory();
  return tidy(() => empty([Math.floor((device.memoryLimit - liveBytes - left) / 4)], { device }).keep());
}

/** What a short step takes beside parameters and states; of that most is the workspace of products. */
const ROOM = (3 * MEMORY_LIMIT) / 4;

describe('memory that runs out', () => {
  for (const [name, options] of Object.entries({
    'the ordinary step': {},
    'the step in the backward': { inBackward: true },
    'clipping by parameter': { clipping: 'parameter' },
  } as Record<string, TrainStepOptions>)) {
    it(`in ${name}: nothing has changed where it says so, and a shorter step succeeds`, async () => {
      using device = openTestDevice({ memoryLimit: MEMORY_LIMIT });
      const run = async (step: TrainStep, model: Decoder, optimizer: AdamW) => {
        const of = { learningRate: 1e-2 };
        await (await step.run([batchOf(1)], of)).loss;
        const before = await bytesOf(tensorsOf(model, optimizer));
        const norm = await step.previousNorm();
        const ballast = fillUp(device, 2 ** 14); // less than the activations of a batch
        const { liveBytes } = device.memory();
        await assert.rejects(step.run([batchOf(3)], of), (error) => {
          assert.ok(error instanceof OutOfMemoryError, String(error));
          assert.match(error.message, /^(cpu|cuda:0): out of memory: .* more do not fit into .*Held: .*would help/);
          return true;
        });
        assert.deepEqual(await bytesOf(tensorsOf(model, optimizer)), before);
        assert.equal(await step.previousNorm(), norm);
        assert.equal(device.memory().liveBytes, liveBytes);
        ballast.dispose();
        const smaller = fillUp(device, ROOM);
        const { inputs, targets } = batchOf(3);
        const less = Math.floor(T / 2);
        const { loss } = await step.run(
          [{ inputs: inputs.slice(0, less), targets: targets.slice(0, less), T: less }],
          of,
        );
        assert.ok(Number.isFinite(await loss));
        smaller.dispose();
        assert.notDeepEqual(await bytesOf(model.parameters()), before.slice(0, model.parameters().length));
      };
      await withStep({ ...options, policy }, run, { device });
    });
  }

  for (const inBackward of [false, true]) {
    it(`in a run, step in the backward ${inBackward}: ends at its last checkpoint, from which it goes on exactly`, async () => {
      const optimizer = { learningRate: 3e-3, inBackward, stateBits: 8 } as const;
      const common = { maxSteps: 7, checkpoint: { everySteps: 2 }, optimizer, memoryLimit: 2 ** 26 };
      const whole = await run(common);
      const outDir = newFolder();
      let device: Device | null = null;
      let ballast: Tensor | null = null;
      const failing = run(
        { ...common, outDir },
        {
          onStart: ({ model }) => {
            ({ device } = model);
          },
          onStep: ({ step }) => {
            if (step === 3) ballast = fillUp(device!, 2 ** 14);
          },
        },
      );
      await assert.rejects(failing, /out of memory/);
      assert.ok(ballast);
      const checkpoints = await readdir(join(outDir, 'checkpoints'));
      assert.ok(checkpoints.length > 0 && !checkpoints.some((name) => name.startsWith('.')), checkpoints.join());
      const last = await run({ ...common, outDir }, { resume: true });
      assert.equal(last.finished, true);
      assert.deepEqual(await linesOf(outDir), await linesOf(whole.outDir));
      assert.ok((await modelOf(outDir)).equals(await modelOf(whole.outDir)));
    });
  }
});
