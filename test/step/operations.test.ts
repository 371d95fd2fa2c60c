// The estimate of a step's operations equals those of the kernels that a step calls, counted on `meta`.
import assert from 'node:assert/strict';
import { type DecoderConfig, decoderConfig, type StepPolicy, simulateStep, stepOperations } from '../../lib/index.ts';
import { RECOMPUTE } from '../../lib/models/policy.ts';
import { presetConfig } from '../../lib/models/presets.ts';
import type {
  AttentionInputs,
  AttentionOptions,
  ExpertScratch,
  ExpertWeights,
  LowRank,
  MlpAdapters,
  MlpWeights,
} from '../../lib/runtime/kernel_arguments.ts';
import { type Kernels, kernels } from '../../lib/runtime/native.ts';
import { tinyLlama } from '../support/runs.ts';

/** Pairs of a query and a key that it sees, one by one. */
function pairsOf(T: number, window: number): number {
  let pairs = 0;
  for (let t = 1; t <= T; t++) pairs += window > 0 ? Math.min(t, window) : t;
  return pairs;
}

type Names = readonly ('gate' | 'up' | 'down')[];
const ALL: Names = ['gate', 'up', 'down'];

const shapeOf = (tensor: object) => (tensor as { shape: readonly [number, number] }).shape;
const size = (tensor: object) => shapeOf(tensor).reduce((product, one) => product * one, 1);

/** Of products of x with weights of an MLP; and with their adapters. */
function ofMlp(x: object, weights: MlpWeights, names: Names): number {
  return names.reduce((total, name) => total + 2 * shapeOf(x)[0] * size(weights[name]), 0);
}
function ofAdapters(x: object, adapters: MlpAdapters, names: Names): number {
  const each = (adapter: LowRank | null) => (adapter ? size(adapter.a) + size(adapter.b) : 0);
  return names.reduce((total, name) => total + 2 * shapeOf(x)[0] * each(adapters[name]), 0);
}

/** Of products of x with weights of a mixture: k experts of E for each token. */
function ofExperts(
  x: object,
  weights: ExpertWeights,
  { experts }: ExpertScratch,
  names: readonly (keyof ExpertWeights)[],
): number {
  const taken = shapeOf(experts)[1] / shapeOf(weights.router)[0];
  const each = (name: keyof ExpertWeights) => size(weights[name]) * (name === 'router' ? 1 : taken);
  return names.reduce((total, name) => total + 2 * shapeOf(x)[0] * each(name), 0);
}

/** Runs `step` and adds up what the kernels that it calls take: 2 for each multiplication and addition of a product. */
function counted(step: () => void): { total: number; attention: number } {
  const sum = { total: 0, attention: 0 };
  const attention = (factor: number, { q }: AttentionInputs, { T, window }: AttentionOptions) => {
    const [N, width] = shapeOf(q);
    const operations = factor * (N / T) * width * pairsOf(T, window);
    sum.total += operations;
    sum.attention += operations;
  };
  const spies: Partial<Kernels> = {
    matmul(a, _b, c, _workspace, transposeA) {
      sum.total += 2 * size(c) * shapeOf(a)[transposeA ? 0 : 1];
    },
    attention_forward: (inputs, _out, _lse, _workspace, options) => attention(4, inputs, options),
    attention_backward: (_dout, inputs, _out, _lse, _gradients, _workspace, options) => attention(10, inputs, options),
    chunked_mlp_forward(x, weights, _y, _gateUp, _h, _workspace, _activation, adapters) {
      sum.total += ofMlp(x, weights, ALL) + ofAdapters(x, adapters, ALL);
    },
    chunked_mlp_backward(_dy, x, weights, gradients, gateUp, _dh, _workspace, _activation, adapters) {
      const { dgate: gate, dup: up, ddown: down } = gradients;
      const again: Names = gateUp.isKept ? [] : ['gate', 'up'];
      const trained = ALL.filter((name) => ({ gate, up, down })[name]);
      sum.total += ofMlp(x, weights, again) + ofAdapters(x, adapters, again);
      sum.total += ofMlp(x, weights, ALL) + ofMlp(x, weights, trained) + 2 * ofAdapters(x, adapters, ALL);
    },
    chunked_experts_forward(x, weights, _y, scratch) {
      sum.total += ofExperts(x, weights, scratch, ['router', 'gateUp', 'down']);
    },
    chunked_experts_backward(_dy, x, weights, _gradients, scratch) {
      const all = ofExperts(x, weights, scratch, ['router', 'gateUp', 'down']);
      sum.total += ofExperts(x, weights, scratch, ['router', 'gateUp']) + 2 * all;
    },
    chunked_cross_entropy(hidden, head, _targets, _outputs, gradients) {
      const products = 1 + (gradients.dhidden ? 1 : 0) + (gradients.dweight ? 1 : 0);
      sum.total += 2 * shapeOf(hidden)[0] * size(head.weight) * products;
    },
  };
  const names = Object.keys(spies) as (keyof Kernels)[];
  const before = Object.fromEntries(names.map((name) => [name, kernels[name]]));
  Object.assign(kernels, spies);
  try {
    step();
  } finally {
    Object.assign(kernels, before);
  }
  return sum;
}

const norms = { model_type: 'gemma2', head_dim: 8, sliding_window: 100, query_pre_attn_scalar: 8 };
const configs: Record<string, DecoderConfig> = {
  llama: decoderConfig({ ...tinyLlama, num_hidden_layers: 4 }),
  'gemma2, with windows and norms after the MLP': decoderConfig({ ...tinyLlama, ...norms, num_hidden_layers: 4 }),
  'qwen3, with norms of queries and keys': decoderConfig({
    ...tinyLlama,
    model_type: 'qwen3',
    head_dim: 8,
    num_hidden_layers: 4,
  }),
};
const experts = { num_experts: 8, num_experts_per_tok: 2, moe_intermediate_size: 24, decoder_sparse_step: 2 };
configs['qwen3_moe, with experts in every second layer'] = decoderConfig({
  ...tinyLlama,
  ...experts,
  model_type: 'qwen3_moe',
  num_hidden_layers: 4,
});
const policies = RECOMPUTE.flatMap((recompute) =>
  (['input', 'gateUp'] as const).flatMap((mlpSave) =>
    [1, 2].map(
      (attentionHeadGroups): StepPolicy => ({
        mlpChunkSize: 64,
        lossChunkSize: 64,
        mlpSave,
        recompute,
        attentionHeadGroups,
      }),
    ),
  ),
);

/** Of 4 layers, the first two in a segment, where attention's output is as wide as the input. */
const keeping = policies
  .filter(({ recompute }) => recompute === 'segments')
  .map((policy): StepPolicy => ({ ...policy, slots: 3, keepAttention: true }));

describe('stepOperations', () => {
  for (const [name, config] of Object.entries(configs)) {
    it(`${name}: counts what a step of every policy calls`, () => {
      for (const policy of [...policies, ...keeping]) {
        for (const { B, T } of [
          { B: 1, T: 256 },
          { B: 2, T: 130 },
        ]) {
          const { total, attention } = counted(() => simulateStep({ config, B, T, policy }));
          const estimate = stepOperations(config, { B, T, policy });
          const of = JSON.stringify({ ...policy, B, T });
          assert.equal(estimate.total, total, of);
          assert.equal(estimate.attention, attention, of);
          assert.equal(estimate.total, estimate.forward + estimate.backward + estimate.recomputed, of);
        }
      }
    });
  }

  it('with adapters: the frozen weights have no gradients', () => {
    const [rank, N] = [4, 256];
    for (const config of [configs.llama!, configs['qwen3, with norms of queries and keys']!])
      for (const policy of [...policies, ...keeping]) {
        const { total } = counted(() => simulateStep({ config, B: 1, T: N, policy, lora: { rank } }));
        // the first layer's input needs no gradient, through three projections and their adapters
        const ofInput = 2 * N * ((32 + 16 + 16) * 32 + 3 * rank * 32);
        const estimate = stepOperations(config, { B: 1, T: N, policy, lora: { rank } });
        assert.equal(estimate.total, total + ofInput, JSON.stringify(policy));
      }
  });

  it('Llama-3-8B: 6 for each weight and token, and attention that grows with the square', () => {
    const config = decoderConfig(presetConfig('Llama-3-8B'));
    const [T, weights] = [8192, 8_030_261_248 - 128256 * 4096 - 65 * 4096]; // all but the embedding and the norms
    const policy = { mlpChunkSize: 4096, lossChunkSize: 4096, mlpSave: 'gateUp', recompute: 'none' } as const;
    const { forward, backward, recomputed, attention } = stepOperations(config, { B: 1, T, policy });
    assert.equal(recomputed, 0);
    assert.equal(forward + backward - attention, 6 * weights * T);
    assert.equal(attention, 14 * 32 * 4096 * ((T * (T + 1)) / 2));
    const twice = stepOperations(config, { B: 1, T, policy, accumulationSteps: 2 });
    assert.equal(twice.forward, 2 * forward);
  });
});
