// Adapters as PEFT and tools that use it write them: W + scale · B·A by a formula in f64.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { addLora, Decoder, decoderConfig, loadAdapter, mergeLora, saveAdapter } from '../../lib/index.ts';
import { readAdapter } from '../../lib/io/adapters.ts';
import { SafetensorsFile } from '../../lib/io/safetensors.ts';
import { LORA_MODULES } from '../../lib/models/adapter.ts';
import { adapterTensors, merged, pathOf, peftConfig, type WrittenTensor, writeAdapter } from '../support/adapters.ts';
import { assertClose } from '../support/compare.ts';
import { openTestDevice } from '../support/devices.ts';
import { normals } from '../support/random.ts';
import { newFolder, tinyLlama } from '../support/runs.ts';

const q = [pathOf(0, 'q_proj'), pathOf(1, 'q_proj')];
const all = [0, 1].flatMap((layer) =>
  LORA_MODULES.filter((name) => name !== 'lm_head').map((name) => pathOf(layer, name)),
);
const four = () => 4;
type Tensors = Map<string, WrittenTensor>;

function tiny(device = openTestDevice(), config: object = tinyLlama): Decoder {
  return new Decoder(decoderConfig({ ...tinyLlama, ...config }), { device }).initialize(1);
}

/** Loads, merges, and holds every weight against the formula. */
async function check(folder: string, tensors: Tensors, scaleOf: (path: string) => number): Promise<void> {
  using device = openTestDevice();
  using model = tiny(device);
  const before = new Map<string, Float32Array>();
  for (const [name, weight] of model.namedParameters()) before.set(name, await weight.toFloat32());
  await loadAdapter(model, folder);
  mergeLora(model);
  for (const [name, weight] of model.namedParameters()) {
    const path = name.replace(/\.weight$/, '');
    const a = tensors.get(`base_model.model.${path}.lora_A.weight`);
    const found = await weight.toFloat32();
    if (!a) assert.deepEqual(found, before.get(name), name);
    else {
      const b = tensors.get(`base_model.model.${path}.lora_B.weight`)!;
      assertClose(found, merged(before.get(name)!, a, b, scaleOf(path)), 1e-6, name);
    }
  }
}

const renamed = (tensors: Tensors, rename: (name: string) => string): Tensors =>
  new Map([...tensors].map(([name, tensor]) => [rename(name), tensor]));

describe('an adapter of PEFT', () => {
  for (const [what, change, paths, rankOf, scaleOf] of [
    ['as 0.19 writes it', {}, q, four, () => 2],
    ['of an older PEFT, without most fields', null, q, four, () => 2],
    ['rsLoRA', { use_rslora: true }, q, four, () => 4],
    ['alpha_pattern', { alpha_pattern: { q_proj: 16 } }, q, four, () => 4],
    [
      'alpha_pattern of a path',
      { alpha_pattern: { 'layers.1.self_attn.q_proj': 16 } },
      q,
      four,
      (path) => (path === q[1] ? 4 : 2),
    ],
    [
      'patterns of which the first that matches counts',
      { alpha_pattern: { '.*1.*q_proj': 3, q_proj: 16, '^model.layers.0.self_attn.q_proj': 5 } },
      q,
      four,
      (path) => (path === q[1] ? 3 / 4 : 4),
    ],
    [
      'patterns that end at a dot',
      { target_modules: ['q_proj', 'k_proj'], alpha_pattern: { _proj: 40, proj: 50, 'k_proj|v_proj': 16 } },
      [...q, pathOf(0, 'k_proj')],
      four,
      (path) => (path.endsWith('k_proj') ? 4 : 2),
    ],
    [
      'rank_pattern and alpha_pattern with rsLoRA',
      {
        target_modules: ['q_proj', 'down_proj'],
        rank_pattern: { down_proj: 9 },
        alpha_pattern: { '1.mlp.down_proj': 12 },
        use_rslora: true,
      },
      [...q, pathOf(0, 'down_proj'), pathOf(1, 'down_proj')],
      (path) => (path.endsWith('down_proj') ? 9 : 4),
      (path) => (path === pathOf(1, 'down_proj') ? 4 : path.endsWith('down_proj') ? 8 / 3 : 4),
    ],
    ['an expression', { target_modules: '.*self_attn[.](q|v)_proj' }, [...q, pathOf(1, 'v_proj')], four, () => 2],
    ['an expression that only Python reads', { target_modules: '(?P<x>.*)q_proj' }, q, four, () => 2],
    ['full paths', { target_modules: q }, q, four, () => 2],
    ['all-linear', { target_modules: 'all-linear' }, all, four, () => 2],
    [
      'all-linear of a tool that counts the head in',
      { target_modules: 'all-linear' },
      [...all, 'lm_head'],
      four,
      () => 2,
    ],
    ['the head', { target_modules: ['lm_head'] }, ['lm_head'], four, () => 2],
    ['some layers', { layers_to_transform: [1] }, [q[1]!], four, () => 2],
    ['one layer', { layers_to_transform: 1, layers_pattern: 'layers' }, [q[1]!], four, () => 2],
    ['layers by a pattern', { layers_to_transform: [0], layers_pattern: ['h', 'layers'] }, [q[0]!], four, () => 2],
    [
      'a path among layers',
      { target_modules: [q[0]!, 'v_proj'], layers_to_transform: [1] },
      [q[0]!, pathOf(1, 'v_proj')],
      four,
      () => 2,
    ],
    [
      'all but some',
      { target_modules: 'all-linear', exclude_modules: ['q_proj', 'layers.1.mlp.up_proj'] },
      all.filter((path) => !q.includes(path) && path !== pathOf(1, 'up_proj')),
      four,
      () => 2,
    ],
    [
      'EVA',
      {
        init_lora_weights: 'eva',
        eva_config: { rho: 2, tau: 0.99 },
        rank_pattern: { [q[1]!]: 6 },
        alpha_pattern: { [q[1]!]: 12 },
      },
      q,
      (path) => (path === q[1] ? 6 : 4),
      () => 2,
    ],
    [
      'what newer versions add, off',
      {
        monteclora_config: null,
        kasa_config: null,
        arrow_config: null,
        brand_new: false,
        other_new: {},
        more: [],
        text: '',
      },
      q,
      four,
      () => 2,
    ],
    [
      'configurations of beginnings that it did not have',
      {
        init_lora_weights: 'gaussian',
        corda_config: { corda_method: 'kpm' },
        loftq_config: { loftq_bits: 4 },
        runtime_config: { ephemeral_gpu_offload: true },
      },
      q,
      four,
      () => 2,
    ],
  ] as [string, object | null, string[], (path: string) => number, (path: string) => number][]) {
    it(`gives W + scale · B·A: ${what}`, async () => {
      const tensors = adapterTensors(paths, rankOf);
      const old = { peft_type: 'LORA', r: 4, lora_alpha: 8, target_modules: ['q_proj'] };
      await check(await writeAdapter(change ? { ...peftConfig, ...change } : old, tensors), tensors, scaleOf);
    });
  }

  for (const [what, rename] of [
    ['without a prefix', (name) => name.replace('base_model.model.', '')],
    ["with the adapter's name", (name) => name.replace('.weight', '.default.weight')],
    ['of the base model alone', (name) => name.replace('base_model.model.model.', 'base_model.model.')],
    ['of a compiled model', (name) => name.replace('base_model.model.', 'base_model.model._orig_mod.')],
    [
      'of DDP and FSDP',
      (name) => `module._fsdp_wrapped_module.${name.replace('.self_attn', '._fsdp_wrapped_module.self_attn')}`,
    ],
  ] as [string, (name: string) => string][]) {
    it(`has its tensors under other names: ${what}`, async () => {
      const tensors = adapterTensors(q, four);
      await check(await writeAdapter(peftConfig, renamed(tensors, rename)), tensors, () => 2);
    });
  }

  it('may be of the base model alone, whose paths have no model.', async () => {
    const tensors = adapterTensors(q, four);
    const config = {
      ...peftConfig,
      target_modules: 'layers\\.\\d+\\.self_attn\\.q_proj',
      alpha_pattern: { '^layers.1.self_attn.q_proj': 16 },
    };
    const folder = await writeAdapter(
      config,
      renamed(tensors, (name) => name.replace('model.model.model.', 'model.model.')),
    );
    await check(folder, tensors, (path) => (path === q[1] ? 4 : 2));
  });

  it('may be in half precision', async () => {
    for (const dtype of ['F16', 'BF16', 'F64'] as const) {
      const tensors: Tensors = new Map();
      for (const [name, { shape, values }] of adapterTensors(q, four)) {
        tensors.set(name, { shape, values: values.map((value) => Math.round(value * 32) / 32), dtype });
      }
      await check(await writeAdapter(peftConfig, tensors), tensors, () => 2);
    }
  });

  it("may hold weights that are the model's own", async () => {
    using model = tiny();
    const own = async (name: string) => await model.namedParameters().get(name)!.toFloat32();
    const embed = await own('model.embed_tokens.weight');
    const head = await own('lm_head.weight');
    const tensors = adapterTensors(['lm_head'], four);
    const config = { ...peftConfig, target_modules: ['lm_head'] };
    const saved = new Map(tensors)
      .set('base_model.model.model.embed_tokens.weight', { shape: [256, 32], values: embed, dtype: 'BF16' })
      .set('base_model.model.lm_head.base_layer.weight', { shape: [256, 32], values: head });
    await check(await writeAdapter(config, saved), tensors, () => 2);
    for (const [name, values, message] of [
      [
        'model.embed_tokens.weight',
        embed.with(700, 3),
        /'base_model.model.model.embed_tokens.weight' differs from the model's 'model.embed_tokens.weight': the values differ.*modules_to_save/,
      ],
      [
        'lm_head.modules_to_save.default.weight',
        embed,
        /lm_head.modules_to_save.default.weight' differs from the model's 'lm_head.weight': the values differ/,
      ],
      ['lm_head.weight', new Float32Array(258 * 32), /it is \(258,32\), the model's is \(256,32\)/],
    ] as const) {
      const tensor = { shape: [values.length / 32, 32], values };
      const folder = await writeAdapter(config, new Map(tensors).set(`base_model.model.${name}`, tensor));
      await assert.rejects(loadAdapter(model, folder), message);
      assert.equal(model.lora, null);
    }
  });
});

describe('saveAdapter', () => {
  it('writes names and fields of PEFT, and what comes back is the same', async () => {
    using device = openTestDevice();
    using model = tiny(device);
    const { adapters } = addLora(model, { rank: 4, alpha: 6, dropout: 0.05, modules: LORA_MODULES });
    let seed = 7;
    for (const { b } of adapters.values()) b.write(Float32Array.from(normals(b.size, seed++, 0.1)));
    const folder = newFolder();
    await saveAdapter(model, folder);
    const config = JSON.parse(await readFile(join(folder, 'adapter_config.json'), 'utf8'));
    assert.deepEqual(
      [config.peft_type, config.task_type, config.r, config.lora_alpha, config.lora_dropout, config.bias],
      ['LORA', 'CAUSAL_LM', 4, 6, 0.05, 'none'],
    );
    assert.deepEqual(config.target_modules, LORA_MODULES);
    assert.deepEqual([config.rank_pattern, config.alpha_pattern], [{}, {}]);
    const file = await SafetensorsFile.open(join(folder, 'adapter_model.safetensors'));
    const entry = file.entries.get('base_model.model.model.layers.1.mlp.down_proj.lora_A.weight')!;
    assert.deepEqual(entry.shape, [4, 88]);
    assert.deepEqual(file.entries.get('base_model.model.lm_head.lora_B.weight')!.shape, [256, 4]);
    assert.equal(file.entries.size, 30);
    await file.close();
    using again = tiny(device);
    const { layout, adapters: read } = await loadAdapter(again, folder);
    assert.deepEqual(layout, model.lora!.layout);
    for (const [path, { a, b, scale, op }] of adapters) {
      const other = read.get(path)!;
      assert.deepEqual([await other.a.data(), await other.b.data()], [await a.data(), await b.data()]);
      assert.deepEqual([other.scale, other.op], [scale, op]);
    }
  });

  it('keeps ranks and factors that differ, and modules of some layers', async () => {
    using device = openTestDevice();
    using model = tiny(device);
    const tensors = adapterTensors([...q, pathOf(1, 'down_proj')], (path) => (path.endsWith('down_proj') ? 9 : 4));
    const config = {
      ...peftConfig,
      target_modules: ['q_proj', 'down_proj'],
      layers_to_transform: [0, 1],
      rank_pattern: { down_proj: 9 },
      alpha_pattern: { 'layers.1.*': 3 },
      use_rslora: true,
    };
    const { layout } = await loadAdapter(model, await writeAdapter(config, tensors));
    const folder = newFolder();
    await saveAdapter(model, folder);
    const written = JSON.parse(await readFile(join(folder, 'adapter_config.json'), 'utf8'));
    assert.deepEqual(written.target_modules, [...q, pathOf(1, 'down_proj')]);
    assert.deepEqual(written.rank_pattern, { [pathOf(1, 'down_proj')]: 9 });
    assert.deepEqual(written.alpha_pattern, { [q[1]!]: 3, [pathOf(1, 'down_proj')]: 3 });
    using again = tiny(device);
    assert.deepEqual((await loadAdapter(again, folder)).layout, layout);
    await check(folder, tensors, (path) => (path === q[0] ? 8 / 2 : path === q[1] ? 3 / 2 : 3 / 3));
  });

  it('is read again only where ranks, factors and dropout are the same', async () => {
    using device = openTestDevice();
    using model = tiny(device);
    const folder = await writeAdapter(peftConfig, adapterTensors(q, four));
    const { adapters } = await loadAdapter(model, folder);
    const { a } = adapters.get(q[1]!)!;
    const values = await a.data();
    a.write(new Float32Array(a.size));
    await readAdapter(model, folder);
    assert.deepEqual(await a.data(), values);
    for (const [change, paths, rank, message] of [
      [{ lora_alpha: 9 }, q, 4, /there 'model.layers.0.self_attn.q_proj' has rank 4 and alpha 9, here .* alpha 8/],
      [{ r: 2 }, q, 2, /has rank 2 and alpha 8, here .* rank 4/],
      [{ use_rslora: true }, q, 4, /there use_rslora is true, here use_rslora is false/],
      [{ lora_dropout: 0 }, q, 4, /there dropout is 0, here dropout is 0.05/],
      [{}, [q[0]!], 4, /there nothing more, here 'model.layers.1.self_attn.q_proj'/],
      [
        { target_modules: ['q_proj', 'k_proj'] },
        [...q, pathOf(0, 'k_proj')],
        4,
        /there '.*k_proj'.*, here nothing more/,
      ],
    ] as [object, string[], number, RegExp][]) {
      const other = await writeAdapter(
        { ...peftConfig, ...change },
        adapterTensors(paths, () => rank),
      );
      await assert.rejects(readAdapter(model, other), message);
    }
    assert.deepEqual(await a.data(), values);
  });
});
