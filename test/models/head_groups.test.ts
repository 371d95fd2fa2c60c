// Attention's heads in groups: gradients of every family that allows groups are those of all heads at once, and groups that cannot be are refused.
import assert from 'node:assert/strict';
import {
  addLora,
  Decoder,
  type Device,
  type Dtype,
  decoderConfig,
  type HuggingFaceConfig,
  nextTokenLoss,
  openDevice,
  type StepPolicy,
  simulateStep,
  Tape,
  tensor,
  toBfloat16,
} from '../../lib/index.ts';
import { LORA_MODULES } from '../../lib/models/adapter.ts';
import { mostHeadGroups } from '../../lib/models/head_groups.ts';
import { assertClose, relativeError } from '../support/compare.ts';
import { integers, normals } from '../support/random.ts';
import { tinyLlama } from '../support/runs.ts';

const [B, T] = [2, 29];
const base = { mlpChunkSize: 17, lossChunkSize: 31, mlpSave: 'input' } as const;
const policies: StepPolicy[] = [
  { ...base, recompute: 'none' },
  { ...base, recompute: 'attention' },
  { ...base, recompute: 'attentionSegments', slots: 2 },
  { ...base, recompute: 'layer' },
  { ...base, recompute: 'segments', slots: 2 },
];

interface Case {
  source?: Partial<HuggingFaceConfig>;
  hasLora?: boolean;
  isPacked?: boolean;
}
const windows = { sliding_window: 5, query_pre_attn_scalar: 8, head_dim: 8 };
const cases: Record<string, Case> = {
  llama: {},
  'llama, packed': { isPacked: true },
  'llama, adapters with dropout': { hasLora: true },
  'qwen2, biases and adapters': { source: { model_type: 'qwen2' }, hasLora: true },
  'qwen3, norms of queries and keys, adapters, packed': {
    source: { model_type: 'qwen3', head_dim: 8 },
    hasLora: true,
    isPacked: true,
  },
  'gemma2, soft-caps and windows': { source: { model_type: 'gemma2', ...windows } },
  'gemma3, packed': { source: { model_type: 'gemma3_text', sliding_window_pattern: 2, ...windows }, isPacked: true },
  'exaone4, no norm before': { source: { model_type: 'exaone4', sliding_window: null } },
  'smollm3, layers without rotation': { source: { model_type: 'smollm3', no_rope_layers: [1, 0, 1] } },
  granite: { source: { model_type: 'granite', residual_multiplier: 0.5, attention_multiplier: 0.2 } },
};

function made({ source, hasLora = false, isPacked = false }: Case, dtype: Dtype, device: Device) {
  const config = decoderConfig({
    ...tinyLlama,
    num_hidden_layers: 3,
    num_attention_heads: 8,
    num_key_value_heads: 4,
    initializer_range: 0.2,
    ...source,
  });
  const model = new Decoder(config, { device, dtype }).initialize(1);
  if (hasLora) {
    addLora(model, { rank: 2, modules: LORA_MODULES, dropout: 0.3 });
    let seed = 7;
    for (const { b } of model.lora!.adapters.values()) {
      const values = Float32Array.from(normals(b.size, seed++, 0.1));
      b.write(dtype === 'bfloat16' ? toBfloat16(values) : values);
    }
  }
  const starts = Int32Array.from({ length: B * T }, (_, n) => n - ((n % T) % 11));
  const batch = {
    inputs: tensor(integers(B * T, 256, 1), { device }),
    targets: tensor(integers(B * T, 256, 2), { device }),
    T,
    documentStart: isPacked ? tensor(starts, { device }) : null,
  };
  return { model, batch };
}

/** The loss and the gradients of all parameters, by name. */
async function lossAndGradients(each: Case, dtype: Dtype, policy: StepPolicy): Promise<Map<string, Float32Array>> {
  using device = openDevice('cpu');
  const found = new Map<string, Float32Array>();
  const { model, batch } = made(each, dtype, device);
  const tape = new Tape();
  const loss = tape.run(() => nextTokenLoss(model, batch, { policy, dropout: { seed: 3, step: 4 } }).loss);
  tape.backward(loss);
  found.set('loss', await loss.toFloat32());
  for (const parameter of model.trainableParameters()) found.set(parameter.name!, await parameter.grad!.toFloat32());
  for (const each of [model, loss, batch.inputs, batch.targets, batch.documentStart]) each?.dispose();
  assert.equal(device.memory().liveBytes, 0);
  return found;
}

describe('attention by groups of heads', () => {
  for (const [name, each] of Object.entries(cases)) {
    it(`has the gradients of all heads at once: ${name}`, async () => {
      const expected = await lossAndGradients(each, 'float32', policies[0]!);
      for (const policy of policies) {
        for (const attentionHeadGroups of [2, 4]) {
          const found = await lossAndGradients(each, 'float32', { ...policy, attentionHeadGroups });
          assert.deepEqual([...found.keys()], [...expected.keys()]);
          for (const [key, values] of found) {
            assertClose(values, expected.get(key)!, 1e-5, `${policy.recompute}, ${attentionHeadGroups} groups: ${key}`);
          }
        }
      }
    });
  }

  it('1 group is the policy without groups, bit for bit', async () => {
    for (const dtype of ['float32', 'bfloat16'] as const) {
      const policy = policies[3]!;
      const expected = await lossAndGradients({ hasLora: true }, dtype, policy);
      assert.deepEqual(
        await lossAndGradients({ hasLora: true }, dtype, { ...policy, attentionHeadGroups: 1 }),
        expected,
      );
    }
  });

  it('in bf16 is as near to f32 as all heads at once', async () => {
    for (const each of [cases.llama!, cases['qwen3, norms of queries and keys, adapters, packed']!]) {
      const policy = policies[3]!;
      const exact = await lossAndGradients(each, 'float32', policy);
      const errorOf = async (attentionHeadGroups: number) => {
        const found = await lossAndGradients(each, 'bfloat16', { ...policy, attentionHeadGroups });
        const errors = [...found].map(([key, values]) => relativeError(values, exact.get(key)!));
        return Math.hypot(...errors) / Math.sqrt(errors.length);
      };
      const atOnce = await errorOf(1);
      for (const groups of [2, 4]) {
        const error = await errorOf(groups);
        assert.ok(error < 1.05 * atOnce, `${groups} groups: ${error}, at once ${atOnce}`);
      }
    }
  });

  it('refuses groups that cannot be, on meta as in a run, and plans none', () => {
    const run = (source: Partial<HuggingFaceConfig>, attentionHeadGroups: number) => {
      const config = decoderConfig({ ...tinyLlama, ...source });
      return simulateStep({ config, B: 1, T: 8, policy: { ...policies[3]!, attentionHeadGroups } });
    };
    run({}, 2);
    for (const groups of [0, 3, 4, 0.5, Number.NaN]) {
      assert.throws(() => run({}, groups), /RangeError: attentionHeadGroups: must divide the 2 key\/value heads, got/);
    }
    assert.throws(
      () => run({ model_type: 'olmo2' }, 2),
      /RangeError: attentionHeadGroups: queries .* must be 1, got 2/,
    );
    const most = (source: object) => mostHeadGroups(decoderConfig({ ...tinyLlama, ...source }));
    assert.equal(most({}), 2);
    assert.equal(most({ num_key_value_heads: 1 }), 1);
    assert.equal(most({ num_attention_heads: 32, num_key_value_heads: 32, head_dim: 2 }), 8);
    assert.equal(most({ num_attention_heads: 12, num_key_value_heads: 12, head_dim: 2 }), 6);
    assert.equal(most({ model_type: 'olmo2' }), 1);
  });
});
