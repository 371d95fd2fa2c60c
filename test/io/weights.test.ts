// Models in and out: round trips, shards, half precision, tied heads, the Hub.
import assert from 'node:assert/strict';
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { Decoder, decoderConfig, loadModel, openDevice, saveModel } from '../../lib/index.ts';
import { fromFile, toFile } from '../../lib/io/elements.ts';
import { openModelFolder } from '../../lib/io/model_folder.ts';
import type { TensorToWrite } from '../../lib/io/safetensors.ts';
import type { SafetensorsDtype } from '../../lib/runtime/safetensors_dtype.ts';
import { contents, copyOf } from '../support/folders.ts';
import { parityCases } from '../support/parity.ts';
import { normals } from '../support/random.ts';

let root: string;
let count = 0;
before(async () => {
  root = await mkdtemp(join(tmpdir(), 'weights-'));
});
after(() => rm(root, { recursive: true }));
const newFolder = () => join(root, String(count++));

/** A copy of a fixture whose tensors are stored in another dtype, some further ones added. */
const storedAs = (fixture: string, dtype: SafetensorsDtype, more: TensorToWrite[] = []) =>
  copyOf(fixture, () => ({ dtype }), more);

async function loadAndSave(folder: string, options?: Parameters<typeof saveModel>[2]): Promise<string> {
  using device = openDevice('cpu');
  using model = await loadModel(folder, { device });
  const copy = newFolder();
  await saveModel(model, copy, options);
  return copy;
}

describe('loadModel and saveModel', () => {
  for (const folder of parityCases('test/fixtures/parity')) {
    it(`reproduce ${basename(folder)} byte by byte`, async () => {
      assert.deepEqual(await contents(await loadAndSave(folder)), await contents(folder));
    });
  }

  for (const dtype of ['BF16', 'F16', 'F64'] as const) {
    it(`keep what was stored: ${dtype}`, async () => {
      const folder = await storedAs('llama', dtype);
      const copy = await loadAndSave(folder);
      assert.deepEqual(await contents(copy), await contents(folder));
      const { dtype: name } = JSON.parse(await readFile(join(copy, 'config.json'), 'utf8'));
      assert.equal(name, { BF16: 'bfloat16', F16: 'float16', F64: 'float64' }[dtype]);
    });
  }

  it('read half precision as float32, bfloat16 as it is', async () => {
    using device = openDevice('cpu');
    using half = await loadModel(await storedAs('llama', 'F16'), { device });
    using brain = await loadModel(await storedAs('llama', 'BF16'), { device });
    assert.deepEqual([half.dtype, brain.dtype], ['float32', 'bfloat16']);
  });

  it('change the dtype when asked', async () => {
    const copy = await loadAndSave('test/fixtures/parity/llama', { dtype: 'float16' });
    for (const [name, text] of await contents(copy)) assert.match(text, /^F16 /, name);
  });

  it('keep a tied head that was stored, and drop old rotary frequencies', async () => {
    const files = await openModelFolder('test/fixtures/parity/qwen2');
    const name = 'model.embed_tokens.weight';
    const file = files.get(name)!;
    const bytes = await file.read(name);
    const head = {
      name: 'lm_head.weight',
      dtype: 'F32' as const,
      shape: file.entries.get(name)!.shape,
      data: () => bytes,
    };
    await file.close();
    const tied = await storedAs('qwen2', 'F32', [head]);
    assert.deepEqual(await contents(await loadAndSave(tied)), await contents(tied));
    const frequencies = { ...head, name: 'model.layers.0.self_attn.rotary_emb.inv_freq' };
    const old = await storedAs('qwen2', 'F32', [frequencies]);
    assert.deepEqual(await contents(await loadAndSave(old)), await contents('test/fixtures/parity/qwen2'));
  });

  it('write shards with an index, and read them', async () => {
    const folder = 'test/fixtures/parity/gemma2';
    const sharded = await loadAndSave(folder, { maxShardBytes: 100_000 });
    const names = (await readdir(sharded)).filter((name) => name.endsWith('.safetensors'));
    assert.ok(names.length > 3 && names.every((name) => /^model-\d{5}-of-\d{5}\.safetensors$/.test(name)), `${names}`);
    const index = JSON.parse(await readFile(join(sharded, 'model.safetensors.index.json'), 'utf8'));
    const files = await openModelFolder(sharded);
    let bytes = 0;
    for (const [name, file] of files) bytes += file.entries.get(name)!.bytes;
    for (const file of new Set(files.values())) await file.close();
    assert.equal(index.metadata.total_size, bytes);
    assert.deepEqual(await contents(sharded), await contents(folder));
    assert.deepEqual(await contents(await loadAndSave(sharded)), await contents(folder));
  });

  it('replace shards by one file and one file by shards', async () => {
    using device = openDevice('cpu');
    using model = await loadModel('test/fixtures/parity/llama', { device });
    const folder = newFolder();
    for (const maxShardBytes of [5e9, 100_000, 5e9]) {
      await saveModel(model, folder, { maxShardBytes });
      assert.deepEqual(await contents(folder), await contents('test/fixtures/parity/llama'));
    }
  });

  it('copy the tokenizer', async () => {
    const folder = await storedAs('llama', 'F32');
    await writeFile(join(folder, 'tokenizer.json'), '{"a":1}');
    await writeFile(join(folder, 'chat_template.jinja'), 'hello');
    await writeFile(join(folder, 'notes.txt'), 'not carried');
    const copy = await loadAndSave(folder);
    assert.equal(await readFile(join(copy, 'chat_template.jinja'), 'utf8'), 'hello');
    assert.deepEqual((await readdir(copy)).sort(), [
      'chat_template.jinja',
      'config.json',
      'generation_config.json',
      'model.safetensors',
      'tokenizer.json',
    ]);
  });

  it('take a tensor that is larger than one piece', async () => {
    const config = decoderConfig({
      model_type: 'llama',
      hidden_size: 256,
      intermediate_size: 8,
      num_hidden_layers: 1,
      num_attention_heads: 4,
      vocab_size: 70_001,
      tie_word_embeddings: true,
    });
    using device = openDevice('cpu');
    using model = new Decoder(config, { device }).initialize(1);
    const folder = newFolder();
    await saveModel(model, folder);
    using again = await loadModel(folder, { device });
    for (const [name, parameter] of model.namedParameters()) {
      assert.deepEqual(await again.namedParameters().get(name)!.data(), await parameter.data(), name);
    }
  });

  it('refuse files that do not fit the config, and name the tensor', async () => {
    using device = openDevice('cpu');
    const folder = newFolder();
    await cp('test/fixtures/parity/llama', folder, { recursive: true });
    const config = JSON.parse(await readFile(join(folder, 'config.json'), 'utf8'));
    const withConfig = (change: object) =>
      writeFile(join(folder, 'config.json'), JSON.stringify({ ...config, ...change }));
    await withConfig({ intermediate_size: 96 });
    await assert.rejects(loadModel(folder, { device }), /gate_proj.* is \(\d+,\d+\), the model's is \(96,\d+\)/);
    await withConfig({ num_hidden_layers: config.num_hidden_layers + 1 });
    await assert.rejects(loadModel(folder, { device }), /is in no file/);
    await withConfig({ num_hidden_layers: config.num_hidden_layers - 1 });
    await assert.rejects(loadModel(folder, { device }), /the model has no parameter/);
    assert.equal(device.memory().liveBytes, 0);
  });
});

describe('half precision', () => {
  const roundTrip = (values: number[]) => {
    const bytes = toFile(Float32Array.from(values), 'float32', 'F16');
    return [...(fromFile('', bytes, 'F16', 'float32') as Float32Array)];
  };

  it('holds every half exactly', () => {
    const words = Uint16Array.from({ length: 65536 }, (_, i) => i);
    const floats = fromFile('', new Uint8Array(words.buffer), 'F16', 'float32') as Float32Array;
    const again = new Uint16Array(toFile(floats, 'float32', 'F16').buffer);
    for (let i = 0; i < 65536; i++) if (!Number.isNaN(floats[i]!)) assert.equal(again[i], words[i], `word ${i}`);
  });

  it('rounds to the nearest, ties to even', () => {
    assert.deepEqual(roundTrip([1 + 2 ** -11, 1 + 3 * 2 ** -11, 65519, 65520, 2 ** -25, 3 * 2 ** -25, -0]), [
      1,
      1 + 2 ** -9,
      65504,
      Infinity,
      0,
      2 ** -23,
      -0,
    ]);
    for (const value of normals(1000, 1)) {
      const [near] = roundTrip([value]);
      assert.ok(Math.abs(near! - value) <= 2 ** -11 * Math.abs(value) + 2 ** -25, `${value} became ${near}`);
    }
  });
});
