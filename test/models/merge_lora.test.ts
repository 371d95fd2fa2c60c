// Merging: W + scale · B·A rounded once, everything else byte for byte, heads that were the embedding.
import assert from 'node:assert/strict';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  Decoder,
  decoderConfig,
  loadAdapter,
  loadModel,
  mergeLora,
  noGrad,
  plainPolicy,
  saveModel,
  tensor,
  tidy,
  toBfloat16,
  toFloat32,
} from '../../lib/index.ts';
import { fromFile, toFile } from '../../lib/io/elements.ts';
import { SafetensorsFile, writeSafetensors } from '../../lib/io/safetensors.ts';
import { LORA_MODULES } from '../../lib/models/adapter.ts';
import type { SafetensorsDtype } from '../../lib/runtime/safetensors_dtype.ts';
import { adapterTensors, bytesByName, merged, pathOf, peftConfig, writeAdapter } from '../support/adapters.ts';
import { runCommand } from '../support/command.ts';
import { assertClose } from '../support/compare.ts';
import { openTestDevice } from '../support/devices.ts';
import { configOf } from '../support/folders.ts';
import { integers, normals } from '../support/random.ts';
import { newFolder, tinyLlama } from '../support/runs.ts';

const paths = [0, 1].flatMap((layer) =>
  LORA_MODULES.filter((name) => name !== 'lm_head').map((name) => pathOf(layer, name)),
);
const config = { ...peftConfig, target_modules: LORA_MODULES };

async function logitsOf(model: Decoder): Promise<Float32Array> {
  const { device } = model;
  const ids = integers(30, 256, 1);
  const logits = noGrad(() =>
    tidy(() =>
      model.logits({ inputs: tensor(ids, { device }), targets: tensor(ids, { device }), T: 30 }, plainPolicy(30)),
    ),
  );
  const values = await logits.toFloat32();
  logits.dispose();
  return values;
}

/** A folder of `tinyLlama`: matrices in one dtype, norms in f32. */
async function modelFolder(dtype: SafetensorsDtype, isTied = false): Promise<string> {
  const folder = newFolder();
  const source = { ...tinyLlama, tie_word_embeddings: isTied };
  using device = openTestDevice();
  using model = new Decoder(decoderConfig(source), { device });
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, 'config.json'), JSON.stringify(source));
  await writeSafetensors(
    join(folder, 'model.safetensors'),
    [...model.namedParameters()].map(([name, { shape, size }], i) => {
      const to = shape.length === 1 ? 'F32' : dtype;
      return { name, dtype: to, shape, data: () => toFile(Float32Array.from(normals(size, i, 0.3)), 'float32', to) };
    }),
  );
  return folder;
}

function merge(model: string, adapter: string, out = newFolder()): string {
  runCommand(['merge', '--model', model, '--adapter', adapter, '--out', out]);
  return out;
}

describe('mergeLora', () => {
  for (const isTied of [false, true]) {
    it(`gives an ordinary model with the same logits; ${isTied ? 'the head was the embedding' : 'a head of its own'}`, async () => {
      using device = openTestDevice();
      const source = { ...tinyLlama, tie_word_embeddings: isTied };
      using model = new Decoder(decoderConfig(source), { device }).initialize(1);
      const live = device.memory().liveBytes;
      const embedding = await model.namedParameters().get('model.embed_tokens.weight')!.data();
      const adapter = await writeAdapter(
        config,
        adapterTensors([...paths, 'lm_head'], () => 4),
      );
      await loadAdapter(model, adapter);
      const expected = await logitsOf(model);
      mergeLora(model);
      assert.equal(model.lora, null);
      assertClose(await logitsOf(model), expected, 1e-5, 'logits');
      assert.deepEqual(await model.namedParameters().get('model.embed_tokens.weight')!.data(), embedding);
      assert.equal(model.config.tieWordEmbeddings, false);
      assert.equal(device.memory().liveBytes - live, isTied ? embedding.byteLength : 0);
      assert.ok(model.trainableParameters().includes(model.head));
      assert.throws(() => mergeLora(model), /no adapters/);
      const folder = newFolder();
      await saveModel(model, folder);
      assert.equal(JSON.parse(await readFile(join(folder, 'config.json'), 'utf8')).tie_word_embeddings, false);
      using again = await loadModel(folder, { device });
      assertClose(await logitsOf(again), expected, 1e-5, 'logits of what was saved');
    });
  }

  it('leaves the model and its adapters as they were where memory runs out', async () => {
    const source = { ...tinyLlama, tie_word_embeddings: true };
    const adapter = await writeAdapter(
      config,
      adapterTensors([...paths, 'lm_head'], () => 4),
    );
    using free = openTestDevice();
    using probe = new Decoder(decoderConfig(source), { device: free });
    await loadAdapter(probe, adapter);
    const memoryLimit = free.memory().liveBytes + 2 ** 16;
    using device = openTestDevice({ memoryLimit });
    using model = new Decoder(decoderConfig(source), { device }).initialize(1);
    await loadAdapter(model, adapter);
    const live = device.memory().liveBytes;
    const before = await Promise.all(model.parameters().map((parameter) => parameter.data()));
    assert.throws(() => mergeLora(model), { name: 'OutOfMemoryError' });
    assert.ok(model.lora && model.config.tieWordEmbeddings);
    assert.equal(device.memory().liveBytes, live);
    assert.deepEqual(await Promise.all(model.parameters().map((parameter) => parameter.data())), before);
  });
});

describe('minisequence merge', () => {
  for (const dtype of ['F32', 'BF16', 'F16'] as const) {
    it(`rounds each sum once to ${dtype} and changes no other byte`, async () => {
      const model = await modelFolder(dtype);
      const tensors = adapterTensors(paths, () => 4);
      const out = merge(model, await writeAdapter(config, tensors));
      const before = await bytesByName(join(model, 'model.safetensors'));
      const after = await bytesByName(join(out, 'model.safetensors'));
      assert.deepEqual([...after.keys()], [...before.keys()]);
      for (const [name, bytes] of before) {
        const key = `base_model.model.${name.replace(/\.weight$/, '')}`;
        const a = tensors.get(`${key}.lora_A.weight`);
        if (!a) {
          assert.deepEqual(after.get(name), bytes, name);
          continue;
        }
        const floats = (data: Uint8Array) => Float32Array.from(fromFile(name, data, dtype, 'float64') as Float64Array);
        const found = floats(after.get(name)!);
        const sums = merged(floats(bytes), a, tensors.get(`${key}.lora_B.weight`)!, 2);
        const rounded = floats(toFile(sums, 'float64', dtype));
        for (const [i, sum] of sums.entries()) {
          // The nearest value, or the next one where the sum is between them to its f32 error.
          const between = (found[i]! + rounded[i]!) / 2;
          assert.ok(found[i] === rounded[i] || Math.abs(between - sum) < 5e-7, `${name}[${i}]: ${found[i]}, ${sum}`);
        }
      }
    });
  }

  it('unties a head that has an adapter', async () => {
    const model = await modelFolder('BF16', true);
    const tensors = adapterTensors(['lm_head'], () => 4);
    const out = merge(model, await writeAdapter(config, tensors));
    const before = await bytesByName(join(model, 'model.safetensors'));
    const after = await bytesByName(join(out, 'model.safetensors'));
    const head = after.get('lm_head.weight')!;
    for (const [name, bytes] of before) assert.deepEqual(after.get(name), bytes, name);
    const weight = fromFile('', before.get('model.embed_tokens.weight')!, 'BF16', 'float32') as Float32Array;
    const [a, b] = [...tensors.values()];
    const expected = toFloat32(toBfloat16(Float32Array.from(merged(weight, a!, b!, 2))));
    assertClose(fromFile('', head, 'BF16', 'float32') as Float32Array, expected, 1e-4, 'the head');
    assert.equal(JSON.parse(await readFile(join(out, 'config.json'), 'utf8')).tie_word_embeddings, false);
  });

  it('unties a head whose one tensor is stored as lm_head, and one of a base model without prefix', async () => {
    const tensors = adapterTensors(['lm_head'], () => 4);
    const [a, b] = [...tensors.values()];
    const embedding = 'model.embed_tokens.weight';
    for (const rename of [
      (name: string) => (name === embedding ? 'lm_head.weight' : name),
      (name: string) => name.replace(/^model\./, ''),
    ]) {
      const model = await modelFolder('F32', true);
      const path = join(model, 'model.safetensors');
      const before = await bytesByName(path);
      const file = await SafetensorsFile.open(path);
      await writeSafetensors(
        path,
        [...before].map(([name, data]) => ({ ...file.entries.get(name)!, name: rename(name), data: () => data })),
      );
      await file.close();
      const out = merge(model, await writeAdapter(config, tensors));
      const after = await bytesByName(join(out, 'model.safetensors'));
      assert.deepEqual([...after.keys()].sort(), [...before.keys(), 'lm_head.weight'].sort());
      for (const [name, bytes] of before) assert.deepEqual(after.get(name), bytes, name);
      const floats = (bytes: Uint8Array) => Float32Array.from(fromFile('', bytes, 'F32', 'float64') as Float64Array);
      const expected = merged(floats(before.get(embedding)!), a!, b!, 2);
      assertClose(floats(after.get('lm_head.weight')!), expected, 1e-6, 'the head');
      assert.equal((await configOf(out)).tie_word_embeddings, false);
    }
  });

  it('does not write over what it merges', async () => {
    const model = await modelFolder('BF16');
    const adapter = await writeAdapter(
      peftConfig,
      adapterTensors([pathOf(0, 'q_proj')], () => 4),
    );
    for (const out of [model, adapter]) assert.throws(() => merge(model, adapter, out), /holds what is merged/);
  });
});
