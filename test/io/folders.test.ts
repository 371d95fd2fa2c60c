// Folders as they are found: names without 'model.', heads beside tied ones, what is not weights, links.
import assert from 'node:assert/strict';
import {
  copyFileSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import {
  type Decoder,
  type Device,
  loadModel,
  loadTokenizer,
  noGrad,
  parseConfig,
  plainPolicy,
  saveModel,
  tensor,
  train,
} from '../../lib/index.ts';
import type { TensorToWrite } from '../../lib/io/safetensors.ts';
import { openTestDevice, testDevice } from '../support/devices.ts';
import { configOf, contents, copyOf, parity } from '../support/folders.ts';
import { newFolder, textFile } from '../support/runs.ts';

async function loadAndSave(folder: string): Promise<string> {
  using device = openTestDevice();
  using model = await loadModel(folder, { device });
  const copy = newFolder();
  await saveModel(model, copy);
  return copy;
}

/** Codes and texts of the warnings while `fn` runs. */
async function warningsOf(fn: () => Promise<unknown>): Promise<string[]> {
  const warnings: string[] = [];
  const onWarning = (warning: Error & { code?: string }) => warnings.push(`${warning.code} ${warning.message}`);
  process.on('warning', onWarning);
  try {
    await fn();
    await new Promise(setImmediate);
  } finally {
    process.off('warning', onWarning);
  }
  return warnings.filter((text) => !text.startsWith('MINISEQUENCE_LEAK'));
}

function setConfig(folder: string, change: object): void {
  const path = join(folder, 'config.json');
  writeFileSync(path, JSON.stringify({ ...JSON.parse(readFileSync(path, 'utf8')), ...change }));
}

async function logitsOf(folder: string, device: Device): Promise<Float32Array> {
  using model: Decoder = await loadModel(folder, { device });
  const ids = tensor(Int32Array.from([5, 17, 200, 3]), { device });
  const logits = noGrad(() => model.logits({ inputs: ids, targets: ids, T: 4 }, plainPolicy(4)));
  return logits.toFloat32();
}

describe('a head in the file of a tied config', () => {
  it('unlike the embedding is kept, computes, and is told; the saved config says so', async () => {
    const folder = await copyOf('llama'); // a fixture with a head of its own
    const plain = await copyOf('llama');
    setConfig(folder, { tie_word_embeddings: true });
    let copy = '';
    const warnings = await warningsOf(async () => {
      copy = await loadAndSave(folder);
    });
    assert.equal(warnings.length, 1);
    assert.match(warnings[0]!, /MINISEQUENCE_OWN_HEAD .*lm_head.weight differs from the embedding/);
    assert.deepEqual(await contents(copy), await contents(folder));
    assert.equal((await configOf(copy)).tie_word_embeddings, false);
    using device = openTestDevice();
    assert.deepEqual(await logitsOf(folder, device), await logitsOf(plain, device));
    assert.deepEqual(await logitsOf(copy, device), await logitsOf(plain, device));
  });

  it('equal to the embedding, in another dtype too, is tied, and written as it was', async () => {
    const embedding = 'model.embed_tokens.weight';
    for (const dtype of ['BF16', 'F32'] as const) {
      const half = await copyOf('qwen2', (name) => (name === 'lm_head.weight' ? null : { dtype: 'BF16' }));
      const [, shape, bytes] = /\((.*)\) (.*)$/.exec((await contents(half)).get(embedding)!)!;
      const words = new Uint16Array(Uint8Array.from(Buffer.from(bytes!, 'base64')).buffer);
      const floats = Uint32Array.from(words, (word) => word << 16);
      const data = new Uint8Array(dtype === 'F32' ? floats.buffer : words.buffer);
      const head: TensorToWrite = {
        name: 'lm_head.weight',
        dtype,
        shape: shape!.split(',').map(Number),
        data: () => data,
      };
      const folder = await copyOf('qwen2', (name) => (name === 'lm_head.weight' ? null : { dtype: 'BF16' }), [head]);
      setConfig(folder, { tie_word_embeddings: true });
      const warnings = await warningsOf(async () => {
        assert.deepEqual(await contents(await loadAndSave(folder)), await contents(folder));
      });
      assert.deepEqual(warnings, []);
    }
  });
});

it('a tied head that is stored without the embedding is the embedding, and saved under its name', async () => {
  const rename = (name: string) => (name === 'model.embed_tokens.weight' ? { name: 'lm_head.weight' } : {});
  const folder = await copyOf('qwen2', (name) => (name === 'lm_head.weight' ? null : rename(name)));
  setConfig(folder, { tie_word_embeddings: true });
  const plain = await copyOf('qwen2', (name) => (name === 'lm_head.weight' ? null : {}));
  setConfig(plain, { tie_word_embeddings: true });
  assert.deepEqual(await contents(await loadAndSave(folder)), await contents(folder));
  using device = openTestDevice();
  assert.deepEqual(await logitsOf(folder, device), await logitsOf(plain, device));
});

describe("a base model's folder", () => {
  const withoutPrefix = (name: string) => ({ name: name.replace(/^model\./, '') });

  it("without 'model.' loads where the head is tied, and is saved under the same names", async () => {
    const folder = await copyOf('qwen2', (name) => (name === 'lm_head.weight' ? null : withoutPrefix(name)));
    setConfig(folder, { architectures: ['Qwen2Model'], tie_word_embeddings: true });
    const copy = await loadAndSave(folder);
    const found = await contents(copy);
    assert.ok(found.has('layers.0.input_layernorm.weight') && found.has('embed_tokens.weight'));
    assert.deepEqual(found, await contents(folder));
    assert.deepEqual((await configOf(copy)).architectures, ['Qwen2Model']);
  });

  it('with a head loads too; without one, untied, the error says what it is', async () => {
    const whole = await copyOf('llama', withoutPrefix);
    assert.deepEqual(await contents(await loadAndSave(whole)), await contents(whole));
    const headless = await copyOf('llama', (name) => (name === 'lm_head.weight' ? null : withoutPrefix(name)));
    await assert.rejects(
      loadModel(headless),
      /'lm_head.weight' is in no file: a base model without head was saved here/,
    );
  });
});

describe('tensors that the model has no place for', () => {
  const extra = (name: string, dtype: 'F32' | 'U8' | 'F8_E4M3' = 'F32'): TensorToWrite => ({
    name,
    dtype,
    shape: [2],
    data: () => new Uint8Array(dtype === 'F32' ? 8 : 2),
  });

  it('are left out where they are tables of the rotary embedding', async () => {
    const names = [
      'model.rotary_emb.inv_freq',
      'model.layers.1.self_attn.rotary_emb.cos_cached',
      'rotary_emb.inv_freq',
    ];
    const folder = await copyOf(
      'llama',
      undefined,
      names.map((name) => extra(name)),
    );
    assert.deepEqual(await contents(await loadAndSave(folder)), await contents(parity('llama')));
  });

  for (const [name, message] of [
    ['v_head.summary.weight', /no parameter 'v_head.summary.weight'$/],
    ['model.layers.0.self_attn.q_proj.bias', /no parameter 'model.layers.0.self_attn.q_proj.bias'$/],
    ['model.layers.0.mlp.up_proj.weight_scale', /weight_scale': the weights are quantised/],
    ['model.layers.0.mlp.up_proj.weight.absmax', /absmax': the weights are quantised/],
    ['model.layers.0.mlp.up_proj.lora_A.weight', /lora_A.weight': it belongs to an adapter/],
    ['x'.repeat(100_000), /no parameter 'x{80}…'$/],
  ] as [string, RegExp][]) {
    it(`are refused by name: ${name.slice(0, 50)}`, async () => {
      await assert.rejects(loadModel(await copyOf('llama', undefined, [extra(name)])), message);
    });
  }

  it('and weights of eight bits are refused with their dtype', async () => {
    const shape = [64, 64];
    const eight: TensorToWrite = {
      name: 'model.layers.0.self_attn.q_proj.weight',
      dtype: 'F8_E4M3',
      shape,
      data: () => new Uint8Array(64 * 64),
    };
    const folder = await copyOf('llama', (name) => (name === eight.name ? null : {}), [eight]);
    await assert.rejects(loadModel(folder), /q_proj.weight' has dtype F8_E4M3, .*the weights are quantised/);
  });
});

describe('ignoreFields', () => {
  it('lets a folder be loaded and trained, and its config is saved as it was', async () => {
    const folder = await copyOf('llama');
    setConfig(folder, { mystery: 3 });
    await assert.rejects(loadModel(folder), /config\.json: mystery \(3\) is not known .*--ignore-fields mystery/);
    const run = (ignoreFields?: string[]) => {
      const model = { path: folder, ignoreFields };
      const data = { files: [textFile('the quick brown fox '.repeat(9))] };
      const outDir = newFolder();
      const options = { model, data, outDir, tokenizer: 'bytes', sequenceLength: 32, maxSteps: 1, threads: 1 } as const;
      return train(parseConfig({ ...options, device: testDevice }));
    };
    await assert.rejects(run(), /mystery/);
    const { outDir } = await run(['mystery']);
    assert.equal((await configOf(outDir)).mystery, 3);
    using device = openTestDevice();
    using model = await loadModel(outDir, { device, ignoreFields: ['mystery'] });
    assert.ok(model.numParameters() > 0);
  });
});

describe('folders without weights', () => {
  const index = (map: object) => JSON.stringify({ weight_map: map });
  for (const [what, files, message] of [
    ['PyTorch alone', { 'pytorch_model.bin': 'x' }, /pytorch_model\.bin is in PyTorch's format: convert/],
    [
      'PyTorch in shards',
      {
        'pytorch_model-00001-of-00002.bin': 'x',
        'pytorch_model-00002-of-00002.bin': 'x',
        'pytorch_model.bin.index.json': '{}',
      },
      /pytorch_model-00001-of-00002\.bin and 1 more are in PyTorch's format/,
    ],
    [
      'shards without index',
      { 'model-00001-of-00002.safetensors': 'x' },
      /model-00001-of-00002\.safetensors is there without model\.safetensors\.index\.json/,
    ],
    [
      'a missing shard',
      { 'model.safetensors.index.json': index({ a: 'model-00002-of-00002.safetensors' }) },
      /model-00002-of-00002\.safetensors: does not exist, but .*index\.json names it/,
    ],
    ['an adapter', { 'adapter_model.safetensors': 'x', 'adapter_config.json': '{}' }, /the folder holds an adapter/],
    ['GGUF', { 'model-q4.gguf': 'x' }, /model-q4\.gguf is in GGUF's format/],
    ['another name', { 'consolidated.safetensors': 'x' }, /consolidated\.safetensors is there, but/],
    ['nothing', {}, /model\.safetensors: does not exist; the folder holds no weights/],
    [
      'a pointer of git-lfs',
      { 'model.safetensors': 'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 5\n' },
      /a pointer of git-lfs.*git lfs pull/,
    ],
    ['a web page', { 'model.safetensors': '<!DOCTYPE html><html>Not found</html>' }, /a web page instead of the file/],
    ['a zip', { 'model.safetensors': 'PK\x03\x04 and so on' }, /in PyTorch's format/],
  ] as [string, Record<string, string>, RegExp][]) {
    it(what, async () => {
      const folder = newFolder();
      writeFileSync(join(folder, 'config.json'), readFileSync(join(parity('llama'), 'config.json')));
      for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
      await assert.rejects(loadModel(folder), (error: Error) => {
        assert.equal(error.name, 'SafetensorsError');
        assert.match(error.message, message);
        return true;
      });
    });
  }

  it('a pointer of git-lfs or a web page for config.json or the index; a folder for a file', async () => {
    for (const [text, message] of [
      ['version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 5\n', /a pointer of git-lfs.*git lfs pull/],
      ['<!DOCTYPE html>\n<html>', /a web page instead/],
      ['{"a": ', /not JSON/],
    ] as const) {
      const folder = await copyOf('llama');
      writeFileSync(join(folder, 'config.json'), text);
      await assert.rejects(loadModel(folder), message);
      const sharded = await copyOf('llama');
      rmSync(join(sharded, 'model.safetensors'));
      writeFileSync(join(sharded, 'model.safetensors.index.json'), text);
      await assert.rejects(loadModel(sharded), message);
    }
    const folder = await copyOf('llama');
    rmSync(join(folder, 'model.safetensors'));
    mkdirSync(join(folder, 'model.safetensors'));
    await assert.rejects(loadModel(folder), /model\.safetensors: is not a file/);
  });

  it('files of JSON over their budget', async () => {
    for (const name of ['config.json', 'model.safetensors.index.json']) {
      const folder = await copyOf('llama');
      if (name !== 'config.json') rmSync(join(folder, 'model.safetensors'));
      writeFileSync(join(folder, name), '{}');
      truncateSync(join(folder, name), 2 ** 26 + 1);
      await assert.rejects(loadModel(folder), /67108865 bytes are over the limit of 67108864/);
    }
  });

  it('a file cut short', async () => {
    const folder = await copyOf('llama');
    const path = join(folder, 'model.safetensors');
    writeFileSync(path, readFileSync(path).subarray(0, -7));
    await assert.rejects(loadModel(folder), /model\.safetensors: is cut short: .* fetch or copy it again/);
  });

  it('one file goes before the index of an earlier save, as in transformers', async () => {
    const folder = await copyOf('llama');
    writeFileSync(join(folder, 'model.safetensors.index.json'), index({ a: 'gone.safetensors' }));
    assert.deepEqual(await contents(folder), await contents(parity('llama')));
  });

  it('no folder at all, a file, an adapter', async () => {
    await assert.rejects(loadModel('/no/such/folder'), /there is no folder \/no\/such\/folder/);
    await assert.rejects(loadModel(join(parity('llama'), 'config.json')), /is a file; give its folder/);
    const adapter = newFolder();
    writeFileSync(join(adapter, 'adapter_config.json'), '{}');
    await assert.rejects(loadModel(adapter), /holds an adapter.*--adapter/);
  });

  it('JSON with a byte order mark, as transformers refuses it: the file is named', async () => {
    const folder = await copyOf('llama');
    for (const name of ['tokenizer.json', 'tokenizer_config.json'])
      copyFileSync(join('test/fixtures/tokenizer', name), join(folder, name));
    const indexed = newFolder();
    copyFileSync(join(folder, 'config.json'), join(indexed, 'config.json'));
    writeFileSync(join(indexed, 'model.safetensors.index.json'), index({ a: 'b.safetensors' }));
    const tokenizer = () => loadTokenizer(join(folder, 'tokenizer.json'));
    const text = 'Grüße — 東京';
    const before = [...(await (await tokenizer()).encode(text))];
    for (const [path, read] of [
      [join(folder, 'config.json'), () => loadModel(folder)],
      [join(indexed, 'model.safetensors.index.json'), () => loadModel(indexed)],
      [join(folder, 'tokenizer.json'), tokenizer],
      [join(folder, 'tokenizer_config.json'), tokenizer],
    ] as const) {
      const own = readFileSync(path, 'utf8');
      writeFileSync(path, `\ufeff${own}`);
      await assert.rejects(read(), new RegExp(`${path}: .*byte order mark, which transformers refuses too`));
      writeFileSync(path, own);
    }
    assert.deepEqual([...(await (await tokenizer()).encode(text))], before);
  });

  it('a file where a folder is to be written', async () => {
    using device = openTestDevice();
    using model = await loadModel(parity('llama'), { device });
    const file = join(newFolder(), 'file');
    writeFileSync(file, 'mine');
    await assert.rejects(saveModel(model, file), new RegExp(`saveModel: ${file} is a file, and a folder`));
    await assert.rejects(
      saveModel(model, join(file, 'in')),
      new RegExp(`saveModel: ${file}/in cannot be made: ENOTDIR`),
    );
    assert.equal(readFileSync(file, 'utf8'), 'mine');
  });
});

describe('links', () => {
  for (const name of ['generation_config.json', 'merges.txt', 'tokenizer.model']) {
    it(`${name}, a link out of the folder, is not copied, and told`, async () => {
      const secret = join(newFolder(), 'id_rsa');
      writeFileSync(secret, 'secret');
      const folder = await copyOf('llama');
      rmSync(join(folder, name), { force: true });
      symlinkSync(secret, join(folder, name));
      let copy = '';
      const warnings = await warningsOf(async () => {
        copy = await loadAndSave(folder);
      });
      assert.ok(!existsSync(join(copy, name)));
      assert.match(
        warnings.join(),
        new RegExp(`MINISEQUENCE_LINK_LEFT_OUT .*${name}: is not copied, since it is a link out`),
      );
    });
  }

  it("HuggingFace's cache, of links into blobs, is copied as files", async () => {
    const hub = newFolder();
    const snapshot = join(hub, 'models--org--name', 'snapshots', '0'.repeat(40));
    const blobs = join(hub, 'models--org--name', 'blobs');
    for (const folder of [snapshot, blobs]) mkdirSync(folder, { recursive: true });
    const folder = await copyOf('llama');
    writeFileSync(join(folder, 'tokenizer_config.json'), '{"a":1}');
    for (const name of ['config.json', 'model.safetensors', 'tokenizer_config.json']) {
      renameSync(join(folder, name), join(blobs, `of-${name}`));
      symlinkSync(`../../blobs/of-${name}`, join(snapshot, name));
    }
    const copy = await loadAndSave(snapshot);
    assert.equal(readFileSync(join(copy, 'tokenizer_config.json'), 'utf8'), '{"a":1}');
    assert.ok(lstatSync(join(copy, 'tokenizer_config.json')).isFile());
    assert.deepEqual(await contents(copy), await contents(parity('llama')));
  });

  it('in the folder that is written to are replaced, never followed', async () => {
    const victim = join(newFolder(), 'victim');
    writeFileSync(victim, 'mine');
    const out = newFolder();
    for (const name of ['config.json', 'config.json.tmp', 'model.safetensors', '.model.safetensors.new']) {
      symlinkSync(victim, join(out, name));
    }
    using device = openTestDevice();
    using model = await loadModel(parity('llama'), { device });
    await saveModel(model, out);
    assert.equal(readFileSync(victim, 'utf8'), 'mine');
    for (const name of ['config.json', 'model.safetensors']) assert.ok(lstatSync(join(out, name)).isFile(), name);
  });
});
