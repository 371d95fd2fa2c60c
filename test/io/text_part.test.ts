// Folders of larger models, of images and text: the text part is read, the other weights are carried through.
import assert from 'node:assert/strict';
import { cp, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  AdamW,
  addLora,
  Decoder,
  decoderConfig,
  loadAdapter,
  loadModel,
  mergeLora,
  noGrad,
  plainPolicy,
  saveAdapter,
  saveModel,
  TrainStep,
  tensor,
  tidy,
} from '../../lib/index.ts';
import { SafetensorsFile, stageSafetensors } from '../../lib/io/safetensors.ts';
import { openTestDevice } from '../support/devices.ts';
import { newFolder } from '../support/runs.ts';

const parts = {
  mistral3: ['mistral', 'Mistral3ForConditionalGeneration', { image_token_index: 10, vision_feature_layer: -1 }],
  'mistral3, Ministral 3': ['ministral3', 'Mistral3ForConditionalGeneration', { spatial_merge_size: 2 }],
  gemma3: ['gemma3', 'Gemma3ForConditionalGeneration', { mm_tokens_per_image: 4, boi_token_index: 5 }],
  gemma4: ['../gemma4', 'Gemma4ForConditionalGeneration', { audio_config: null, boi_token_id: 3 }],
} as const;

const namings: Record<string, (name: string) => string> = {
  'model.language_model': (name) => name.replace(/^model\./, 'model.language_model.'),
  'language_model.model': (name) => `language_model.${name}`,
};

const vision: [string, string, number[]][] = [
  ['vision_tower.patch_conv.weight', 'BF16', [3, 2, 2, 2]],
  ['multi_modal_projector.norm.weight', 'F32', [5]],
  ['vision_tower.position_ids', 'I64', [2]],
];

async function contents(folder: string): Promise<Map<string, string>> {
  const file = await SafetensorsFile.open(join(folder, 'model.safetensors'));
  const found = new Map<string, string>();
  for (const [name, { dtype, shape }] of file.entries) {
    found.set(name, `${dtype} ${shape} ${Buffer.from(await file.read(name)).toString('hex')}`);
  }
  await file.close();
  return new Map([...found].sort());
}

/** A folder of a larger model, made of a text model's. */
async function larger(type: keyof typeof parts, naming: (name: string) => string): Promise<string> {
  const [text, architecture, fields] = parts[type];
  const from = `test/fixtures/parity/${text}`;
  const folder = newFolder();
  await cp(from, folder, { recursive: true });
  const { architectures: _, ...inner } = JSON.parse(await readFile(join(from, 'config.json'), 'utf8'));
  const tie = inner.tie_word_embeddings ?? false;
  const config = {
    architectures: [architecture],
    model_type: type.split(',')[0],
    text_config: inner,
    vision_config: { hidden_size: 3 },
    tie_word_embeddings: tie,
    ...fields,
  };
  await writeFile(join(folder, 'config.json'), JSON.stringify(config));
  const file = await SafetensorsFile.open(join(from, 'model.safetensors'));
  const tensors = [...file.entries].map(([name, { dtype, shape }]) => ({
    name: naming(name),
    dtype,
    shape,
    data: () => file.read(name),
  }));
  const others = vision.map(([name, dtype, shape], i) => ({
    name: naming === namings['model.language_model'] ? `model.${name}` : name,
    dtype: dtype as 'F32',
    shape,
    data: async () => {
      const bytes = { BF16: 2, F32: 4, I64: 8 }[dtype]! * shape.reduce((a, b) => a * b, 1);
      return Uint8Array.from({ length: bytes }, (_, j) => (7 * j + i) % 256);
    },
  }));
  const staged = await stageSafetensors(join(folder, 'model.safetensors'), [...others, ...tensors]);
  await staged.commit();
  await file.close();
  return folder;
}

const ids = Int32Array.from({ length: 20 }, (_, i) => (i * 37 + 1) % 256); // 0 pads: its row is 0

async function logitsOf(model: Decoder): Promise<Float32Array> {
  const logits = noGrad(() =>
    tidy(() => {
      const inputs = tensor(ids, { device: model.device });
      return model.logits({ inputs, targets: inputs, T: 20 }, plainPolicy(20));
    }),
  );
  const values = await logits.toFloat32();
  logits.dispose();
  return values;
}

describe('the text part of a larger model', () => {
  for (const type of Object.keys(parts) as (keyof typeof parts)[]) {
    for (const [prefix, naming] of Object.entries(namings)) {
      it(`${type}, ${prefix}: computes what the text model does, and is saved with all weights byte for byte`, async () => {
        using device = openTestDevice();
        const folder = await larger(type, naming);
        using plain = await loadModel(`test/fixtures/parity/${parts[type][0]}`, { device });
        using model = await loadModel(folder, { device });
        assert.deepEqual(await logitsOf(model), await logitsOf(plain));
        const copy = newFolder();
        await saveModel(model, copy);
        assert.deepEqual(await contents(copy), await contents(folder));
        const read = async (path: string) => JSON.parse(await readFile(join(path, 'config.json'), 'utf8'));
        const { dtype: _, torch_dtype: __, ...written } = await read(copy);
        assert.deepEqual(written, await read(folder));
      });
    }
  }

  it('is trained, saved and read again; other weights stay', async () => {
    using device = openTestDevice();
    const folder = await larger('gemma3', namings['model.language_model']!);
    using model = await loadModel(folder, { device });
    using optimizer = new AdamW(model.trainableParameters());
    using step = new TrainStep(model, optimizer, { policy: plainPolicy(20) });
    await step.run([{ inputs: ids, targets: ids, T: 20 }], { learningRate: 1e-2 });
    const copy = newFolder();
    await saveModel(model, copy);
    const [before, after] = [await contents(folder), await contents(copy)];
    assert.deepEqual([...after.keys()], [...before.keys()]);
    for (const [name, value] of after) assert.equal(value === before.get(name), !name.includes('language_model'), name);
    using again = await loadModel(copy, { device });
    assert.deepEqual(await logitsOf(again), await logitsOf(model));
  });

  it('has adapters by the names that PEFT gives them in the larger model', async () => {
    using device = openTestDevice();
    const folder = await larger('mistral3', namings['language_model.model']!);
    using model = await loadModel(folder, { device });
    const { adapters } = addLora(model, { rank: 2, modules: ['q_proj', 'down_proj'] });
    for (const { b } of adapters.values()) b.write(new Float32Array(b.size).fill(0.1));
    const to = newFolder();
    await saveAdapter(model, to);
    const file = await SafetensorsFile.open(join(to, 'adapter_model.safetensors'));
    const names = [...file.entries.keys()];
    await file.close();
    const module = 'model.language_model.layers.0.self_attn.q_proj';
    assert.ok(names.includes(`base_model.model.${module}.lora_A.weight`));
    const { target_modules } = JSON.parse(await readFile(join(to, 'adapter_config.json'), 'utf8'));
    assert.ok(target_modules.includes(module) && !target_modules.includes('q_proj'));
    using again = await loadModel(folder, { device });
    await loadAdapter(again, to);
    assert.deepEqual(await logitsOf(again), await logitsOf(model));
  });

  it('gets a head of its own by a merged adapter, under the name that the larger model has', async () => {
    using device = openTestDevice();
    const folder = await larger('gemma3', namings['model.language_model']!);
    using model = await loadModel(folder, { device });
    const { adapters } = addLora(model, { rank: 2, modules: ['lm_head'] });
    for (const { b } of adapters.values()) b.write(new Float32Array(b.size).fill(0.1));
    mergeLora(model);
    const copy = newFolder();
    await saveModel(model, copy);
    const names = [...(await contents(copy)).keys()];
    assert.ok(names.includes('lm_head.weight') && names.includes('model.language_model.embed_tokens.weight'));
    using again = await loadModel(copy, { device });
    assert.deepEqual(await logitsOf(again), await logitsOf(model));
  });

  it('refuses unknown tensors and fields of the text part, other texts, and saving without the other weights', async () => {
    using device = openTestDevice();
    const read = async (type: keyof typeof parts) =>
      JSON.parse(await readFile(join(await larger(type, namings['model.language_model']!), 'config.json'), 'utf8'));
    const config = await read('gemma3');
    const changed = (fields: object) => ({ ...config, text_config: { ...config.text_config, ...fields } });
    assert.throws(() => decoderConfig(changed({ qk_layernorm: true })), /config\.json: text_config: qk_layernorm/);
    assert.throws(() => decoderConfig(changed({ model_type: 'llama' })), /text_config\.model_type must be gemma3_text/);
    assert.throws(() => decoderConfig({ ...config, mystery: 3 }), /config\.json: mystery/);
    assert.throws(() => decoderConfig({ ...config, text_config: 3 }), /text_config must be an object/);
    using model = new Decoder(decoderConfig(config), { device }).initialize(1);
    await assert.rejects(saveModel(model, newFolder()), /config\.json is of a larger model, whose other weights/);
    const folder = await larger('gemma3', (name) => `model.language_model.${name.replace('model.', '')}x`);
    await assert.rejects(loadModel(folder, { device }), /parameter 'model\.embed_tokens\.weight' is in no file/);
  });
});
