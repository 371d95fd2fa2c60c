// Parameters that an update has made NaN or infinite are found, and nothing is saved of them.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import {
  Decoder,
  type Dtype,
  decoderConfig,
  NonFiniteError,
  Parameter,
  type RunConfigInput,
  tensor,
  toBfloat16,
} from '../../lib/index.ts';
import { firstNonFinite } from '../../lib/optim/finite.ts';
import { requireFiniteParameters } from '../../lib/train/non_finite.ts';
import { debugDevice, leavingNothing, openTestDevice } from '../support/devices.ts';
import { newFolder, run, tinyLlama } from '../support/runs.ts';

/** What f32 does not hold. */
const OVERFLOW = 1e39;

describe('the first parameter that is not finite', () => {
  for (const dtype of ['float32', 'bfloat16'] as Dtype[]) {
    it(`is found if one value, anywhere, is not finite; huge values do not count: ${dtype}`, () =>
      leavingNothing(debugDevice(), async () => {
        const device = debugDevice();
        const stored = (values: Float32Array) => (dtype === 'bfloat16' ? toBfloat16(values) : values);
        const sizes = [1, 3, 1000, 4099];
        const parameters = sizes.map(
          (size) => new Parameter(tensor(new Float32Array(size).fill(3e38), { dtype, device })),
        );
        assert.equal(await firstNonFinite(parameters), null);
        for (const [i, size] of sizes.entries()) {
          for (const value of [Number.NaN, Infinity, -Infinity]) {
            for (const place of new Set([0, Math.floor(size / 2), size - 1])) {
              parameters[i]!.write(stored(new Float32Array(size).fill(1).with(place, value)));
              assert.equal(await firstNonFinite(parameters), parameters[i], `${value} at ${place} of ${size}`);
            }
          }
          parameters[i]!.write(stored(new Float32Array(size).fill(1)));
        }
        for (const parameter of parameters) parameter.dispose();
      }));
  }
});

describe('a run whose update is not finite', () => {
  for (const [name, options, tensor] of [
    ['all parameters', {}, 'model\\.embed_tokens\\.weight'],
    ['adapters', { lora: { rank: 2 } }, 'model\\.layers\\.0\\..*lora_'],
    ['skipping steps', { nonFinite: 'skip' }, 'model\\.embed_tokens\\.weight'],
    ['in the backward', { optimizer: { inBackward: true } }, 'model\\.embed_tokens\\.weight'],
  ] as [string, Partial<RunConfigInput>, string][]) {
    it(`ends with the step and the tensor, and saves nothing: ${name}`, async () => {
      const outDir = newFolder();
      const common = { ...options, outDir, schedule: { type: 'constant' }, checkpoint: { everySteps: 1 } } as const;
      const optimizer = { ...options.optimizer, learningRate: OVERFLOW };
      const samples = { everySteps: 1, prompts: ['a'] };
      await assert.rejects(run({ ...common, samples, optimizer, maxSteps: 1 }), (error: Error) => {
        assert.ok(error instanceof NonFiniteError && error.isHalfDone, String(error));
        const message = `^step 1: the update made values of ${tensor}.* NaN or infinite; .* there is no checkpoint$`;
        assert.match(error.message, new RegExp(message));
        return true;
      });
      const saved = ['model.safetensors', 'adapter_model.safetensors', 'checkpoints'];
      assert.deepEqual(
        saved.filter((name) => existsSync(join(outDir, name))),
        [],
      );
    });
  }

  it('names the checkpoint that remains', async () => {
    using device = openTestDevice();
    using model = new Decoder(decoderConfig(tinyLlama), { device }).initialize(1);
    await requireFiniteParameters(3, model, 2);
    const norm = model.namedParameters().get('model.norm.weight')!;
    norm.write(new Float32Array(norm.size).fill(Infinity));
    await assert.rejects(
      requireFiniteParameters(3, model, 2),
      /^NonFiniteError: step 3: .* model\.norm\.weight .*; they are not saved, and --resume goes on from the checkpoint of step 2$/,
    );
  });

  it('is saved where its values are huge and finite', async () => {
    const optimizer = { learningRate: 1e30 };
    const { outDir } = await run({ maxSteps: 1, optimizer, schedule: { type: 'constant' } });
    assert.ok(existsSync(join(outDir, 'model.safetensors')));
  });
});
