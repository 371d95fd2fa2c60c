// Adapters that are refused, each by the name of what is wrong.
import assert from 'node:assert/strict';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Decoder, decoderConfig, loadAdapter } from '../../lib/index.ts';
import { adapterTensors, pathOf, peftConfig, type WrittenTensor, writeAdapter } from '../support/adapters.ts';
import { openTestDevice } from '../support/devices.ts';
import { newFolder, tinyLlama } from '../support/runs.ts';

const q = [pathOf(0, 'q_proj'), pathOf(1, 'q_proj')];
const four = () => 4;
type Tensors = Map<string, WrittenTensor>;

function tiny(device = openTestDevice(), config: object = tinyLlama): Decoder {
  return new Decoder(decoderConfig({ ...tinyLlama, ...config }), { device }).initialize(1);
}

describe('an adapter', () => {
  it('is refused where a field changes the numbers, by its name', async () => {
    using model = tiny();
    const tensors = adapterTensors(q, four);
    for (const [change, message] of [
      [{ use_dora: true }, /adapter_config.json: use_dora \(true\) is not supported/],
      [{ use_qalora: true }, /use_qalora \(true\)/],
      [{ lora_bias: true }, /lora_bias \(true\)/],
      [{ bias: 'all' }, /bias must be "none", got "all"/],
      [{ fan_in_fan_out: true }, /fan_in_fan_out must be false, got true/],
      [{ modules_to_save: ['lm_head'] }, /modules_to_save \(\["lm_head"\]\)/],
      [{ trainable_token_indices: [1, 2] }, /trainable_token_indices \(\[1,2\]\)/],
      [{ layer_replication: [[0, 2]] }, /layer_replication/],
      [{ megatron_config: { x: 1 } }, /megatron_config/],
      [{ alora_invocation_tokens: [5] }, /alora_invocation_tokens/],
      [{ target_parameters: ['w'] }, /target_parameters/],
      [{ use_bdlora: { nblocks: 2 } }, /use_bdlora/],
      [{ arrow_config: { top_k: 3 } }, /arrow_config/],
      [{ kasa_config: { beta: 1 } }, /kasa_config/],
      [{ monteclora_config: { num_samples: 8 } }, /monteclora_config/],
      [{ brand_new: 0 }, /brand_new \(0\) is not supported: it may change what the adapter computes/],
      [{ peft_type: 'ADALORA' }, /peft_type must be "LORA", got "ADALORA"/],
      ...['pissa', 'pissa_niter_16', 'OLoRA', 'corda', 'loftq', 'lora_ga', 'something'].map(
        (kind) => [{ init_lora_weights: kind }, new RegExp(`init_lora_weights must be .* got "${kind}"`)] as const,
      ),
      [{ r: 5 }, /r and rank_pattern give 'model.layers.0.self_attn.q_proj' rank 5, but .*q_proj.lora_A.weight' has 4/],
      [{ rank_pattern: { q_proj: 8 } }, /rank 8, but/],
      [{ r: null }, /r must be a number, or absent, got null/],
      [{ lora_alpha: null }, /lora_alpha must be a number, or absent, got null/],
      [{ lora_dropout: null }, /lora_dropout must be a number, or absent, got null/],
      [{ lora_alpha: '8' }, /lora_alpha must be a number, got "8"/],
      [{ alpha_pattern: { q_proj: 'x' } }, /alpha_pattern must be an object of numbers by name/],
      [{ alpha_pattern: { '(?P<a>q)_proj': 2 } }, /alpha_pattern: .*Invalid group/],
      [{ alpha_pattern: { '(.*.*)*.*.*.*.*z': 2 } }, /alpha_pattern: its expressions take over 2000 ms/],
      [{ target_modules: ['v_proj'] }, /target_modules.* do not select 'model.layers.0.self_attn.q_proj'/],
      [{ target_modules: '.*v_proj' }, /do not select/],
      [{ target_modules: 'q_proj' }, /do not select/], // an expression of the whole name
      [{ exclude_modules: 'model.layers.1.*' }, /do not select 'model.layers.1.self_attn.q_proj'/],
      [{ layers_to_transform: [1] }, /do not select 'model.layers.0.self_attn.q_proj'/],
      [{ layers_to_transform: [0, 1], layers_pattern: 'h' }, /do not select/],
    ] as [object, RegExp][]) {
      await assert.rejects(
        loadAdapter(model, await writeAdapter({ ...peftConfig, ...change }, tensors)),
        (error: Error) => {
          assert.match(error.message, message);
          assert.doesNotMatch(error.message, /family/);
          return true;
        },
      );
      assert.equal(model.lora, null);
    }
  });

  it('is taken where the user says that a field does not matter', async () => {
    using model = tiny();
    const config = { ...peftConfig, brand_new: 7, use_dora: true };
    const folder = await writeAdapter(config, adapterTensors(q, four));
    await assert.rejects(loadAdapter(model, folder, { ignoreFields: ['brand_new'] }), /use_dora/);
    const { adapters } = await loadAdapter(model, folder, { ignoreFields: ['brand_new', 'use_dora'] });
    assert.equal(adapters.size, 2);
  });

  it('is refused where a tensor has no place or is missing, by its name', async () => {
    using model = tiny();
    const path = 'base_model.model.model.layers.0.self_attn.q_proj';
    const one = (shape: number[]) => ({ shape, values: new Float32Array(shape[0]! * (shape[1] ?? 1)) });
    for (const [change, message] of [
      [
        (tensors) => tensors.delete(`${path}.lora_B.weight`),
        /has '.*layers.0.*lora_A.weight' without the adapter's lora_B/,
      ],
      [
        (tensors) => tensors.delete(`${path}.lora_A.weight`),
        /has '.*layers.0.*lora_B.weight' without the adapter's lora_A/,
      ],
      [(tensors) => tensors.set(`${path}.lora_magnitude_vector`, one([32])), /no place for '.*lora_magnitude_vector'/],
      [(tensors) => tensors.set(`${path}.lora_B.bias`, one([32])), /no place for '.*lora_B.bias'/],
      [
        (tensors) => tensors.set('base_model.model.model.embed_tokens.lora_embedding_A', one([4, 256])),
        /no place for '.*lora_embedding_A'/,
      ],
      [(tensors) => tensors.set(`${path.replace('0', '7')}.lora_A.weight`, one([4, 32])), /no place for '.*layers.7/],
      [
        (tensors) => tensors.set(`${path}.lora_A.other.weight`, one([4, 32])),
        /lora_A.weight' and '.*lora_A.other.weight' belong to the same adapter/,
      ],
      [
        (tensors) => tensors.set(`${path}.lora_A.weight`, one([4, 33])),
        /is \(4,33\), but the model's projection needs \(4,32\)/,
      ],
      [
        (tensors) => tensors.set(`${path}.lora_B.weight`, one([32, 5])),
        /is \(32,5\), but the model's projection needs \(32,4\)/,
      ],
      [
        (tensors) => tensors.set(`${path}.lora_A.weight`, one([0])),
        /is \(0\), but the model's projection needs \(r,32\)/,
      ],
      [(tensors) => tensors.clear(), /has no adapters/],
    ] as [(tensors: Tensors) => unknown, RegExp][]) {
      const tensors = adapterTensors(q, four);
      change(tensors);
      await assert.rejects(loadAdapter(model, await writeAdapter(peftConfig, tensors)), message);
    }
    assert.equal(model.lora, null);
  });

  it('whose head is the embedding has a factor of its own', async () => {
    using device = openTestDevice();
    using model = tiny(device, { tie_word_embeddings: true });
    const folder = await writeAdapter(
      { ...peftConfig, target_modules: ['lm_head'], ensure_weight_tying: true },
      adapterTensors(['lm_head'], four),
    );
    await assert.rejects(loadAdapter(model, folder), /ensure_weight_tying must be false if lm_head has an adapter/);
  });

  it('says what a folder lacks', async () => {
    using model = tiny();
    const folder = newFolder();
    await assert.rejects(loadAdapter(model, folder), /has no adapter_config.json; an adapter's folder needs it beside/);
    await writeFile(join(folder, 'adapter_config.json'), '[]');
    await assert.rejects(loadAdapter(model, folder), /adapter_config.json: is not a JSON object/);
    await writeFile(join(folder, 'adapter_config.json'), '{');
    await assert.rejects(loadAdapter(model, folder), /adapter_config.json: is not JSON/);
    await writeFile(join(folder, 'adapter_config.json'), ' '.repeat(2 ** 24 + 1));
    await assert.rejects(loadAdapter(model, folder), /adapter_config.json: has 16777217 bytes, over the limit/);
    await writeFile(join(folder, 'adapter_config.json'), JSON.stringify(peftConfig));
    await assert.rejects(loadAdapter(model, folder), /has no adapter_model.safetensors/);
    const pointer = 'version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab\nsize 12345\n';
    await writeFile(join(folder, 'adapter_model.safetensors'), pointer);
    await assert.rejects(loadAdapter(model, folder), /adapter_model.safetensors: is a pointer of git-lfs/);
    await rm(join(folder, 'adapter_model.safetensors'));
    await writeFile(join(folder, 'adapter_model.bin'), 'PK');
    await assert.rejects(
      loadAdapter(model, folder),
      /only adapter_model.bin, which may contain code.*safe_serialization/,
    );
  });
});
