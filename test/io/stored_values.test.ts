// Files whose dtype holds more than the model's: what is not trained comes back, what is trained begins there and is saved unrounded.
import assert from 'node:assert/strict';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  AdamW,
  addLora,
  type Decoder,
  type Dtype,
  loadAdapter,
  loadModel,
  parseConfig,
  plainPolicy,
  saveAdapter,
  saveModel,
  TrainStep,
  toBfloat16,
  train,
} from '../../lib/index.ts';
import { SafetensorsFile } from '../../lib/io/safetensors.ts';
import type { SafetensorsDtype } from '../../lib/runtime/safetensors_dtype.ts';
import { openTestDevice, testDevice } from '../support/devices.ts';
import { contents, copyOf, floatsOf, parity } from '../support/folders.ts';
import { normals } from '../support/random.ts';
import { newFolder, textFile } from '../support/runs.ts';

const isNorm = (name: string) => name.includes('norm');
const down = 'model.layers.0.mlp.down_proj.weight';

/** Loads a folder in a dtype, saves it, and returns where. */
async function again(folder: string, dtype?: Dtype): Promise<string> {
  using device = openTestDevice();
  using model = await loadModel(folder, { device, dtype });
  const copy = newFolder();
  await saveModel(model, copy);
  return copy;
}

async function oneStep(model: Decoder, optimizer: AdamW, learningRate: number): Promise<void> {
  const ids = Int32Array.from({ length: 16 }, (_, i) => (i * 7) % 256);
  using step = new TrainStep(model, optimizer, { policy: plainPolicy(16) });
  await step.run([{ inputs: ids, targets: ids }], { learningRate });
}

describe('values that the model does not hold', () => {
  for (const [name, change, dtype] of [
    ['BF16 with F32 norms', (name) => (isNorm(name) ? {} : { dtype: 'BF16' }), undefined],
    ['BF16 with F16 norms', (name) => ({ dtype: isNorm(name) ? 'F16' : 'BF16' }), undefined],
    ['F32 in bfloat16', () => ({}), 'bfloat16'],
    ['F16 in bfloat16', () => ({ dtype: 'F16' }), 'bfloat16'],
    ['F64 in float32', () => ({ dtype: 'F64' }), 'float32'],
    ['F64 in bfloat16', () => ({ dtype: 'F64' }), 'bfloat16'],
  ] as [string, (name: string) => { dtype?: SafetensorsDtype }, Dtype | undefined][]) {
    it(`come back byte for byte where nothing was trained: ${name}`, async () => {
      const folder = await copyOf('llama', change);
      assert.deepEqual(await contents(await again(folder, dtype)), await contents(folder));
    });
  }

  it('come back for frozen parameters and for single elements that have not moved', async () => {
    using device = openTestDevice();
    using model = await loadModel(parity('llama'), { device, dtype: 'bfloat16' });
    const parameter = model.namedParameters().get(down)!;
    const words = (await parameter.data()) as Uint16Array;
    words[3] = words[3]! ^ 1;
    parameter.write(words);
    const copy = newFolder();
    await saveModel(model, copy);
    const expected = await floatsOf(parity('llama'), down);
    expected[3] = new Float32Array(Uint32Array.of(words[3]! << 16).buffer)[0]!;
    assert.deepEqual(await floatsOf(copy, down), expected);
    const [before, after] = [await contents(parity('llama')), await contents(copy)];
    for (const [name, bytes] of before) if (name !== down) assert.equal(after.get(name), bytes, name);
  });

  it('are saved from the file that was loaded, though another stands in its place', async () => {
    using device = openTestDevice();
    const folder = await copyOf('llama');
    const before = await contents(folder);
    using model = await loadModel(folder, { device, dtype: 'bfloat16' });
    for (let i = 0; i < 2; i++) {
      await saveModel(model, folder);
      assert.deepEqual(await contents(folder), before);
    }
    await saveModel(model, folder, { dtype: 'bfloat16' });
    const copy = newFolder();
    await saveModel(model, copy);
    assert.deepEqual(await contents(copy), before);
  });

  it('are what was asked for, in another dtype', async () => {
    using device = openTestDevice();
    using model = await loadModel(parity('llama'), { device, dtype: 'bfloat16' });
    for (const dtype of ['float64', 'bfloat16'] as const) {
      const copy = newFolder();
      await saveModel(model, copy, { dtype });
      const expected = await floatsOf(parity('llama'), down);
      const found = await floatsOf(copy, down);
      if (dtype === 'float64') assert.deepEqual(found, expected);
      else assert.deepEqual(toBfloat16(found), toBfloat16(expected));
    }
  });
});

describe('master weights of a wider file', () => {
  it('begin with its values and are what is saved: two steps move F32 weights as in float32', async () => {
    const moved: Float64Array[] = [];
    const start = await floatsOf(parity('llama'), down);
    for (const dtype of ['float32', 'bfloat16'] as const) {
      using device = openTestDevice();
      using model = await loadModel(parity('llama'), { device, dtype });
      using optimizer = new AdamW(model.trainableParameters(), { weightDecay: 0 });
      for (let step = 0; step < 2; step++) await oneStep(model, optimizer, 1e-6);
      const copy = newFolder();
      await saveModel(model, copy);
      const end = await floatsOf(copy, down);
      moved.push(Float64Array.from(end, (value, i) => value - start[i]!));
    }
    for (const changes of moved) {
      const largest = changes.reduce((most, change) => Math.max(most, Math.abs(change)), 0);
      assert.ok(largest > 1.9e-6 && largest < 2.1e-6, `moved by ${largest}`);
    }
  });

  it('saved and loaded again give the model that was trained', async () => {
    using device = openTestDevice();
    using model = await loadModel(parity('llama'), { device, dtype: 'bfloat16' });
    for (const masterWeights of [true, false]) {
      using optimizer = new AdamW(model.trainableParameters(), { masterWeights });
      for (let step = 0; step < 3; step++) await oneStep(model, optimizer, 1e-3);
      const copy = newFolder();
      await saveModel(model, copy);
      using loaded = await loadModel(copy, { device, dtype: 'bfloat16' });
      for (const [name, parameter] of model.namedParameters()) {
        assert.deepEqual(await loaded.namedParameters().get(name)!.data(), await parameter.data(), name);
      }
    }
  });

  it('are read at once or, without holding up anything, by readStored', async () => {
    using device = openTestDevice();
    using model = await loadModel(parity('llama'), { device, dtype: 'bfloat16' });
    const stateOf = async (optimizer: AdamW) =>
      Promise.all([...optimizer.state()].map(async ([name, tensor]) => [name, await tensor.data()] as const));
    using atOnce = new AdamW(model.trainableParameters());
    using later = new AdamW(model.trainableParameters(), { readStored: false });
    const masters = new Map(await stateOf(atOnce));
    assert.deepEqual(masters.get(`${down}.master`), await floatsOf(parity('llama'), down));
    assert.notDeepEqual(new Map(await stateOf(later)), masters);
    await later.readStored();
    assert.deepEqual(new Map(await stateOf(later)), masters);
  });

  it('of a continued run are those of an uninterrupted one', async () => {
    const folder = await copyOf('llama', (name) => (isNorm(name) ? {} : { dtype: 'F16' }));
    const files = [textFile('the quick brown fox jumps over the lazy dog '.repeat(9))];
    const run = async (outDir: string, stopAt?: number) => {
      const stop = new AbortController();
      const config = {
        model: { path: folder },
        tokenizer: 'bytes',
        data: { files },
        sequenceLength: 32,
        maxSteps: 5,
        dtype: 'bfloat16',
        optimizer: { learningRate: 1e-5 },
        device: testDevice,
        threads: 1,
        outDir,
      } as const;
      const onStep = ({ step }: { step: number }) => step === stopAt && stop.abort();
      await train(parseConfig(config), { resume: stopAt === undefined, signal: stop.signal, onStep });
    };
    const [whole, parts] = [newFolder(), newFolder()];
    await run(whole);
    await run(parts, 2);
    await run(parts);
    const trained = await contents(whole);
    assert.deepEqual(await contents(parts), trained);
    assert.notDeepEqual(trained, await contents(folder));
  });

  it('give way to a value that was written to the parameter', async () => {
    using device = openTestDevice();
    using model = await loadModel(parity('llama'), { device, dtype: 'bfloat16' });
    using _ = new AdamW(model.trainableParameters());
    const norm = model.namedParameters().get('model.norm.weight')!;
    norm.write(toBfloat16(new Float32Array(norm.size).fill(3)));
    const copy = newFolder();
    await saveModel(model, copy);
    assert.deepEqual(await floatsOf(copy, 'model.norm.weight'), new Float32Array(norm.size).fill(3));
  });

  it('a file cut short after loading costs the last bits, with a warning, not the trained weights', async () => {
    using device = openTestDevice();
    const folder = await copyOf('llama');
    using model = await loadModel(folder, { device, dtype: 'bfloat16' });
    await writeFile(join(folder, 'model.safetensors'), '');
    const warned: string[] = [];
    const onWarning = ({ message }: Error) => warned.push(message);
    process.on('warning', onWarning);
    const copy = newFolder();
    await saveModel(model, copy, { tokenizerFrom: null });
    await new Promise(setImmediate);
    process.off('warning', onWarning);
    assert.equal(warned.length, 1);
    assert.match(warned[0]!, /because the original values cannot be read: .*ends \d+ bytes early/);
    const expected = await floatsOf(parity('llama'), down);
    assert.deepEqual(toBfloat16(await floatsOf(copy, down)), toBfloat16(expected));
  });
});

describe('F32 adapters of a bfloat16 model', () => {
  const name = 'base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight';

  /** An adapter of the fixture, with values in every tensor. */
  async function adapterOf(folder: string): Promise<string> {
    using device = openTestDevice();
    using model = await loadModel(folder, { device, dtype: 'float32' });
    for (const [i, { a, b }] of [...addLora(model, { rank: 4 }).adapters.values()].entries()) {
      for (const [j, tensor] of [a, b].entries()) tensor.write(Float32Array.from(normals(tensor.size, 2 * i + j, 0.1)));
    }
    const adapter = newFolder();
    await saveAdapter(model, adapter);
    return adapter;
  }
  const bytesOf = (folder: string) => readFile(join(folder, 'adapter_model.safetensors'));

  it('come back byte for byte, and begin and end training unrounded', async () => {
    const [folder, moved] = [await copyOf('llama', () => ({ dtype: 'BF16' })), [] as number[]];
    const adapter = await adapterOf(folder);
    for (const dtype of ['float32', 'bfloat16'] as const) {
      using device = openTestDevice();
      using model = await loadModel(folder, { device, dtype });
      await loadAdapter(model, adapter);
      const again = newFolder();
      await saveAdapter(model, again);
      assert.ok((await bytesOf(again)).equals(await bytesOf(adapter)), dtype);
      using optimizer = new AdamW(model.trainableParameters(), { weightDecay: 0 });
      for (let step = 0; step < 2; step++) await oneStep(model, optimizer, 1e-6);
      await saveAdapter(model, again);
      const [before, after] = await Promise.all([adapter, again].map((each) => tensorOf(each, name)));
      moved.push(after!.reduce((most, value, i) => Math.max(most, Math.abs(value - before![i]!)), 0));
    }
    for (const largest of moved) assert.ok(largest > 1.9e-6 && largest < 2.1e-6, `moved by ${moved}`);
  });

  it('go on from a checkpoint as if nothing had been between', async () => {
    const folder = await copyOf('llama', () => ({ dtype: 'BF16' }));
    const from = await adapterOf(folder);
    const files = [textFile('the quick brown fox jumps over the lazy dog '.repeat(9))];
    const run = async (outDir: string, stopAt?: number) => {
      const stop = new AbortController();
      const common = { tokenizer: 'bytes', data: { files }, sequenceLength: 32, maxSteps: 5, threads: 1 } as const;
      const config = {
        ...common,
        model: { path: folder },
        lora: { from },
        dtype: 'bfloat16',
        device: testDevice,
        outDir,
      };
      const onStep = ({ step }: { step: number }) => step === stopAt && stop.abort();
      await train(parseConfig(config), { resume: stopAt === undefined, signal: stop.signal, onStep });
    };
    const [whole, parts] = [newFolder(), newFolder()];
    await run(whole);
    await run(parts, 2);
    await run(parts);
    assert.ok((await bytesOf(parts)).equals(await bytesOf(whole)));
  });

  async function tensorOf(folder: string, name: string): Promise<Float32Array> {
    const file = await SafetensorsFile.open(join(folder, 'adapter_model.safetensors'));
    assert.equal(file.entries.get(name)!.dtype, 'F32');
    const bytes = Uint8Array.from(await file.read(name));
    await file.close();
    return new Float32Array(bytes.buffer);
  }
});
