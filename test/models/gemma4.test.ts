// Gemma 4 against PyTorch and transformers. Its scores are not scaled down, so that f32 alone gives gradients to some 5e-5: PyTorch's differ so from
// those of f64. In f64 the decoder's are compared with these.
import assert from 'node:assert/strict';
import { cp, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  type Dtype,
  KeyValueCache,
  loadModel,
  nextToken,
  noGrad,
  plainPolicy,
  saveModel,
  Tape,
  tensor,
  tidy,
} from '../../lib/index.ts';
import { SafetensorsFile } from '../../lib/io/safetensors.ts';
import { toDevice } from '../../lib/models/batch.ts';
import { assertClose, relativeError } from '../support/compare.ts';
import { itOnCpu, openTestDevice, valuesOf } from '../support/devices.ts';
import { newFolder } from '../support/runs.ts';

const folder = 'test/fixtures/gemma4';

async function oneStep(from: string, dtype: Dtype): Promise<{ loss: number; gradients: Map<string, Float64Array> }> {
  using device = openTestDevice();
  using model = await loadModel(from, { device, dtype });
  const { oneStep } = JSON.parse(await readFile(join(folder, 'expected.json'), 'utf8'));
  const inputs: number[][] = oneStep.inputIds;
  const targets = (oneStep.labels as number[][]).flatMap((row) => [...row.slice(1), -100]);
  const batch = { inputs: inputs.flat(), targets, T: inputs[0]!.length };
  const policy = { mlpChunkSize: 29, lossChunkSize: 37, mlpSave: 'input', recompute: 'attention' } as const;
  const objective = nextToken();
  const tape = new Tape();
  using loss = tidy(() => {
    const made = toDevice(batch, device);
    return tape.run(() => objective.loss(model, made, { policy, divisor: objective.count(batch) }));
  });
  tape.backward(loss);
  const gradients = new Map<string, Float64Array>();
  for (const [name, { grad }] of model.namedParameters()) gradients.set(name, await valuesOf(grad!));
  return { loss: await loss.item(), gradients };
}

const edited = async (factors: (layer: number) => number): Promise<string> => {
  const copy = newFolder();
  await cp(folder, copy, { recursive: true });
  const path = join(copy, 'model.safetensors');
  const bytes = await readFile(path);
  const header = 8 + Number(bytes.readBigUInt64LE(0));
  const entries = JSON.parse(bytes.subarray(8, header).toString('utf8'));
  for (let layer = 0; layer < 6; layer++) {
    const [begin] = entries[`model.layers.${layer}.layer_scalar`].data_offsets;
    bytes.writeFloatLE(factors(layer), header + begin);
  }
  await writeFile(path, bytes);
  return copy;
};

describe('gemma4', () => {
  itOnCpu("has PyTorch's loss and gradients, to what PyTorch's f32 gives", async () => {
    const expected = JSON.parse(await readFile(join(folder, 'expected.json'), 'utf8'));
    const { loss, gradients } = await oneStep(folder, 'float64');
    assert.ok(Math.abs(loss - expected.oneStep.loss) < 2e-6);
    const file = await SafetensorsFile.open(join(folder, 'gradients.safetensors'));
    const names = [...file.entries.keys()].filter((name) => !name.endsWith('.layer_scalar')); // buffers, stored there too
    assert.deepEqual(names.sort(), [...gradients.keys()].sort());
    for (const [name, gradient] of gradients) {
      const theirs = new Float32Array((await file.read(name)).buffer);
      const error = relativeError(gradient, Float64Array.from(theirs));
      assert.ok(error < 6e-5, `${name}: ${error}`);
    }
    await file.close();
    const single = await oneStep(folder, 'float32');
    for (const [name, gradient] of gradients) assertClose(single.gradients.get(name)!, gradient, 1e-4, name);
  });

  it('multiplies the output of each layer by the number in its file, and saves that as it was', async () => {
    using device = openTestDevice();
    const factor = (layer: number) => [1, 0.5, 2, 0.25, 1, 3][layer]!;
    const copy = await edited(factor);
    using model = await loadModel(copy, { device });
    assert.deepEqual(
      [...model.constants().values()].map(({ value }) => value),
      [1, 0.5, 2, 0.25, 1, 3],
    );
    const saved = newFolder();
    await saveModel(model, saved);
    const read = async (from: string) => {
      const file = await SafetensorsFile.open(join(from, 'model.safetensors'));
      const tensors: [string, string][] = [];
      for (const [name, { dtype, shape }] of file.entries) {
        tensors.push([name, `${dtype} ${shape} ${Buffer.from(await file.read(name)).toString('hex')}`]);
      }
      await file.close();
      return new Map(tensors.sort());
    };
    assert.deepEqual(await read(saved), await read(copy));
    // A factor of the last layer goes through the last norm, which takes it away up to eps.
    const logits = async (from: string) => {
      using model = await loadModel(from, { device });
      const ids = Int32Array.from({ length: 30 }, (_, i) => (i * 37) % 256);
      const whole = noGrad(() =>
        tidy(() => {
          const inputs = tensor(ids, { device });
          return model.logits({ inputs, targets: inputs, T: 30 }, plainPolicy(30));
        }),
      );
      using cache = new KeyValueCache(model, 30);
      await model.decode(ids.subarray(0, 17), cache);
      const last = await model.decode(ids.subarray(17), cache);
      const values = await whole.toFloat32();
      whole.dispose();
      assertClose(last, values.subarray(29 * 256), 1e-4, 'cached');
      return values;
    };
    const plain = await logits(folder);
    assertClose(await logits(await edited((layer) => (layer === 5 ? 1024 : 1))), plain, 1e-4, 'last layer');
    const changed = relativeError(await logits(copy), plain);
    assert.ok(changed > 0.01, `${changed}`);
  });
});
