// From config.json to the decoder's config, with files as the Hub has them.
import assert from 'node:assert/strict';
import { type DecoderConfig, decoderConfig } from '../../lib/index.ts';
import { published } from '../support/published_configs.ts';

const tiny = {
  hidden_size: 64,
  intermediate_size: 160,
  num_hidden_layers: 3,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  vocab_size: 500,
};
const llama = { model_type: 'llama', ...tiny };
const attentionOf = ({ layers }: DecoderConfig) => layers[0]!.attention;
const windowsOf = ({ layers }: DecoderConfig) => layers.map(({ attention }) => attention.window);

describe('decoderConfig', () => {
  for (const [name, source] of Object.entries(published)) {
    it(`reads ${name}`, () => {
      const config = decoderConfig(source);
      assert.equal(config.vocabSize, source.vocab_size);
      assert.equal(
        attentionOf(config).headSize,
        source.head_dim ?? (source.hidden_size as number) / (source.num_attention_heads as number),
      );
      assert.deepEqual(windowsOf(config).slice(0, 2), name === 'gemma-2-9b' ? [4096, 0] : [0, 0]);
      assert.equal(config.tieWordEmbeddings, name === 'gemma-2-9b');
    });
  }

  it('reads both spellings of rotary positions', () => {
    assert.deepEqual(attentionOf(decoderConfig({ ...llama, rope_theta: 500000 })).rope, {
      type: 'default',
      theta: 500000,
    });
    assert.deepEqual(
      attentionOf(decoderConfig({ ...llama, rope_parameters: { rope_type: 'linear', rope_theta: 7, factor: 2 } })).rope,
      { type: 'linear', theta: 7, factor: 2 },
    );
    assert.deepEqual(
      attentionOf(decoderConfig({ ...llama, rope_theta: 9, rope_scaling: { type: 'linear', factor: 4 } })).rope,
      {
        type: 'linear',
        theta: 9,
        factor: 4,
      },
    );
  });

  it('gives windows to the layers that have one', () => {
    assert.deepEqual(windowsOf(decoderConfig({ ...tiny, model_type: 'mistral', sliding_window: 5 })), [5, 5, 5]);
    const qwen = { ...tiny, model_type: 'qwen2', sliding_window: 7, max_window_layers: 2 };
    assert.deepEqual(windowsOf(decoderConfig(qwen)), [0, 0, 0]);
    assert.deepEqual(windowsOf(decoderConfig({ ...qwen, use_sliding_window: true })), [0, 0, 7]);
    const types = ['sliding_attention', 'full_attention', 'sliding_attention'];
    assert.deepEqual(windowsOf(decoderConfig({ ...qwen, use_sliding_window: true, layer_types: types })), [7, 0, 7]);
    assert.throws(() => decoderConfig({ ...qwen, layer_types: types }), /layer_types .*sliding windows are off/);
    assert.deepEqual(
      windowsOf(decoderConfig({ ...tiny, model_type: 'gemma2', head_dim: 16, sliding_window: 9 })),
      [9, 0, 9],
    );
  });

  it('reads which layers of a SmolLM3 have rotary positions, and which a window', () => {
    const smollm3 = { ...tiny, num_hidden_layers: 5, model_type: 'smollm3' };
    const rotated = (source: Record<string, unknown>) =>
      decoderConfig({ ...smollm3, ...source }).layers.map(({ attention }) =>
        attention.rope ? attention.rope.theta : 0,
      );
    assert.deepEqual(rotated({}), [2e6, 2e6, 2e6, 0, 2e6]);
    assert.deepEqual(rotated({ no_rope_layer_interval: 2, rope_theta: 7 }), [7, 0, 7, 0, 7]);
    assert.deepEqual(rotated({ no_rope_layers: [0, 0, 1, 0, 0, 1], rope_theta: 7 }), [0, 0, 7, 0, 0]);
    assert.deepEqual(rotated({ no_rope_layers: null, no_rope_layer_interval: 1 }), [0, 0, 0, 0, 0]);
    const windows = (source: Record<string, unknown>) => windowsOf(decoderConfig({ ...smollm3, ...source }));
    assert.deepEqual(windows({ sliding_window: 9 }), [0, 0, 0, 0, 0]);
    assert.deepEqual(windows({ use_sliding_window: true, sliding_window: null }), [0, 0, 0, 0, 0]);
    assert.deepEqual(windows({ use_sliding_window: true, sliding_window: 9 }), [0, 0, 0, 9, 0]);
    const types = ['sliding_attention', ...new Array<string>(4).fill('full_attention')];
    assert.deepEqual(windows({ use_sliding_window: true, sliding_window: 9, layer_types: types }), [9, 0, 0, 0, 0]);
    assert.equal(attentionOf(decoderConfig(smollm3)).numKeyValueHeads, 2);
    assert.equal(decoderConfig(smollm3).tieWordEmbeddings, true);
  });

  it("reads Gemma 3's two kinds of layers, in both spellings", () => {
    const gemma3 = { ...tiny, num_hidden_layers: 7, model_type: 'gemma3_text' };
    const ropes = (source: Record<string, unknown>) =>
      decoderConfig({ ...gemma3, ...source }).layers.map(
        ({ attention: { window, rope } }) => `${window} ${rope?.type} ${rope?.theta}`,
      );
    const six = (sliding: string, full: string) => [...new Array<string>(5).fill(sliding), full, sliding];
    assert.deepEqual(ropes({}), six('4096 default 10000', '0 default 1000000'));
    const linear = { rope_type: 'linear', factor: 8 };
    const old = { rope_theta: 5e5, rope_local_base_freq: 77, rope_scaling: linear, sliding_window: 9 };
    assert.deepEqual(ropes(old), six('9 default 77', '0 linear 500000'));
    const named = { full_attention: { ...linear, rope_theta: 5e5 }, sliding_attention: { rope_theta: 77 } };
    assert.deepEqual(ropes({ rope_parameters: named, sliding_window: 9 }), six('9 default 77', '0 linear 500000'));
    assert.deepEqual(ropes({ sliding_window: 9, sliding_window_pattern: 1 })[0], '0 default 1000000');
    for (const [source, message] of [
      [{ rope_parameters: linear }, /rope_parameters must be full_attention and sliding_attention/],
      [{ rope_parameters: named, rope_theta: 1 }, /full_attention: rope_theta must be that of rope_parameters, 500000/],
      [{ rope_parameters: named, rope_local_base_freq: 1 }, /sliding_attention: rope_theta must be that of/],
      [{ sliding_window: null }, /sliding_window must be a positive integer, got null/],
      [{ sliding_window_pattern: null }, /sliding_window_pattern must be a number of layers/],
      [{ attn_logit_softcapping: 50 }, /attn_logit_softcapping must be absent, got 50/],
      [{ use_bidirectional_attention: true }, /use_bidirectional_attention/],
    ] as const) {
      assert.throws(() => ropes(source), message);
    }
  });

  it('reads the norms of OLMo 2 and EXAONE 4, and which layers of the latter have windows and positions', () => {
    const olmo2 = decoderConfig({ ...tiny, model_type: 'olmo2' });
    assert.equal(olmo2.norm.eps, 1e-5);
    assert.deepEqual([attentionOf(olmo2).qkNorm, attentionOf(olmo2).rope?.theta], ['all', 10000]);
    const exaone4 = (source: Record<string, unknown>) =>
      decoderConfig({ ...tiny, num_hidden_layers: 4, model_type: 'exaone4', ...source }).layers.map(
        ({ attention: { window, rope } }) => `${window}${rope ? ' rotated' : ''}`,
      );
    assert.deepEqual(exaone4({}), ['4096 rotated', '4096 rotated', '4096 rotated', '0']);
    const types = ['full_attention', 'sliding_attention', 'full_attention', 'full_attention'];
    const published = { sliding_window: 7, sliding_window_pattern: 'LLLG' };
    assert.deepEqual(exaone4({ ...published, layer_types: types }), ['0', '7 rotated', '0', '0']);
    assert.deepEqual(exaone4({ sliding_window: null }), new Array<string>(4).fill('0 rotated'));
    assert.throws(() => exaone4(published), /sliding_window_pattern must be a number, got "LLLG"/);
    assert.throws(() => exaone4({ sliding_window_pattern: null }), /sliding_window_pattern must be a number of layers/);
    assert.throws(() => exaone4({ sliding_window: null, layer_types: types }), /sliding windows are off/);
  });

  it('reads the biases of Seed-OSS and ERNIE 4.5, and the norms and bases of HunYuan', () => {
    const biases = (source: Record<string, unknown>) => {
      const { attention, mlp } = decoderConfig({ ...tiny, ...source }).layers[0]!;
      return [attention.bias, attention.outputBias, mlp.bias];
    };
    const seed = { model_type: 'seed_oss', head_dim: 16 };
    assert.deepEqual(biases(seed), [true, false, false]);
    assert.deepEqual(biases({ ...seed, attention_bias: false, attention_out_bias: true }), [false, true, false]);
    assert.deepEqual(biases({ ...seed, mlp_bias: true }), [true, false, true]);
    assert.equal(attentionOf(decoderConfig({ ...tiny, model_type: 'seed_oss' })).headSize, 128);
    const ernie = { model_type: 'ernie4_5' };
    assert.deepEqual(biases(ernie), [false, false, false]);
    assert.deepEqual(biases({ ...ernie, use_bias: true }), [true, true, true]);
    const read = decoderConfig({ ...tiny, ...ernie });
    assert.deepEqual([read.tieWordEmbeddings, read.norm.eps, attentionOf(read).headSize], [true, 1e-5, 128]);
    assert.equal(attentionOf(decoderConfig({ ...tiny, ...ernie, head_dim: null })).headSize, 16);
    const scaling = {
      alpha: 1000,
      beta_fast: 32,
      beta_slow: 1,
      factor: 1,
      mscale: 1,
      mscale_all_dim: 1,
      type: 'dynamic',
    };
    const hunyuan = decoderConfig({ ...tiny, model_type: 'hunyuan_v1_dense', rope_scaling: scaling });
    const { rope, isNormedAfterRotation, qkNormNames } = attentionOf(hunyuan);
    assert.deepEqual(rope, { type: 'dynamic', theta: 10000, factor: 1, maxPositions: 2048, alpha: 1000 });
    assert.deepEqual([isNormedAfterRotation, qkNormNames.q], [true, 'query_layernorm']);
    assert.equal(attentionOf(decoderConfig({ ...tiny, model_type: 'hunyuan_v1_dense' })).rope?.type, 'default');
  });

  it('reads the rotary positions of OLMo 3, Phi-3 and GLM-4', () => {
    const olmo3 = decoderConfig({ ...tiny, num_hidden_layers: 5, model_type: 'olmo3', sliding_window: 7 });
    assert.deepEqual(windowsOf(olmo3), [7, 7, 7, 0, 7]);
    assert.deepEqual(attentionOf(olmo3).rope, { type: 'default', theta: 500000 });
    const scaling = { rope_type: 'linear', factor: 8 };
    const scaled = decoderConfig({ ...tiny, num_hidden_layers: 4, model_type: 'olmo3', rope_scaling: scaling });
    assert.deepEqual(
      scaled.layers.map(({ attention }) => attention.rope?.type),
      ['default', 'default', 'default', 'linear'],
    );
    const phi3 = { ...tiny, model_type: 'phi3' };
    const factors = { short_factor: [1, 1, 1, 1, 1, 1], long_factor: [1, 2, 3, 4, 5, 6] };
    const mini = {
      ...phi3,
      partial_rotary_factor: 0.75,
      max_position_embeddings: 131072,
      original_max_position_embeddings: 4096,
      full_attn_mod: 1,
      interpolate_factor: 1,
      lm_head_bias: false,
    };
    for (const type of ['longrope', 'su', 'yarn']) {
      const { rope, rotatedSize, isFused } = attentionOf(
        decoderConfig({ ...mini, rope_scaling: { type, ...factors } }),
      );
      assert.deepEqual([rotatedSize, isFused], [12, true]);
      assert.deepEqual(rope, {
        type: 'longrope',
        theta: 10000,
        shortFactors: factors.short_factor,
        longFactors: factors.long_factor,
        originalMaxPositions: 4096,
        attentionFactor: Math.sqrt(1 + Math.log(32) / Math.log(4096)),
      });
    }
    assert.equal(attentionOf(decoderConfig(phi3)).rotatedSize, 16);
    assert.equal(attentionOf(decoderConfig({ ...phi3, sliding_window: 2047 })).window, 2047);
    const glm4 = decoderConfig({ ...tiny, model_type: 'glm4' });
    const { bias, outputBias, rotatedSize, headSize, isInterleaved } = attentionOf(glm4);
    assert.deepEqual([bias, outputBias, rotatedSize, headSize, isInterleaved], [true, false, 64, 128, true]);
    assert.deepEqual([glm4.norm.eps, glm4.layers[0]!.mlp.isFused], [1.5625e-7, true]);
    const inside = { rope_parameters: { partial_rotary_factor: 0.25, rope_theta: 7 } };
    assert.equal(attentionOf(decoderConfig({ ...tiny, model_type: 'glm4', ...inside })).rotatedSize, 32);
  });

  it('reads the growth of queries of Ministral 3', () => {
    const config = decoderConfig({ ...tiny, model_type: 'ministral3', max_position_embeddings: 262144 });
    const { rope, queryGrowth, headSize, window } = attentionOf(config);
    assert.deepEqual([rope?.type, rope?.theta, headSize, window], ['yarn', 1e6, 128, 0]);
    assert.ok(rope?.type === 'yarn' && rope.factor === 16 && rope.attentionFactor === 1);
    assert.deepEqual(queryGrowth, { factor: 0.1, positions: 16384 });
    const own = { rope_type: 'default', original_max_position_embeddings: 5, llama_4_scaling_beta: 2, rope_theta: 7 };
    const plain = attentionOf(
      decoderConfig({ ...tiny, model_type: 'ministral3', rope_parameters: own, sliding_window: 3 }),
    );
    assert.deepEqual([plain.queryGrowth, plain.rope?.theta, plain.window], [{ factor: 2, positions: 5 }, 7, 3]);
  });

  it("reads the sizes of Gemma 4's two kinds of layers, in both spellings", () => {
    const gemma4 = { ...tiny, num_hidden_layers: 12, model_type: 'gemma4_text', hidden_size_per_layer_input: 0 };
    const sizes = (source: Record<string, unknown>) =>
      decoderConfig({ ...gemma4, ...source })
        .layers.slice(4, 6)
        .map(({ attention: { headSize, numKeyValueHeads, window, areValuesKeys, rope, rotatedSize } }) =>
          [headSize, numKeyValueHeads, window, areValuesKeys, rope!.type, rotatedSize].join(' '),
        );
    assert.deepEqual(sizes({}), ['256 2 512 false default 256', '512 2 0 false proportional 512']);
    const older = { head_dim: 8, global_head_dim: 20, num_global_key_value_heads: 1 };
    assert.deepEqual(sizes(older), ['8 2 512 false default 8', '20 2 0 false proportional 20']);
    assert.deepEqual(sizes({ ...older, attention_k_eq_v: true }), [
      '8 2 512 false default 8',
      '20 1 0 true proportional 20',
    ]);
    const perLayer = {
      head_dim: 8,
      per_layer_config: { '05': { head_dim: 12, num_key_value_heads: 4 }, 11: { head_dim: 12 } },
    };
    assert.deepEqual(sizes(perLayer), ['8 2 512 false default 8', '12 4 0 false proportional 12']);
    const config = decoderConfig({ ...gemma4, layer_types: new Array<string>(12).fill('sliding_attention') });
    assert.deepEqual(windowsOf(config).slice(10), [512, 0]);
    assert.deepEqual([config.norm.offset, config.tieWordEmbeddings, config.layers[0]!.hasScalar], [0, true, true]);
    assert.deepEqual(attentionOf(config).scale, 1);
  });

  it("takes 1 for the factors that a Granite does not have, attention's too", () => {
    const { layers, embedding, head, tieWordEmbeddings } = decoderConfig({ ...tiny, model_type: 'granite' });
    const [{ attention, residualScale }] = layers as [(typeof layers)[0]];
    assert.deepEqual([attention.scale, residualScale, embedding.scale, head.scale], [1, 1, 1, 1]);
    assert.equal(tieWordEmbeddings, false);
  });

  it('takes null for none and absence for the default', () => {
    const gemma = { ...tiny, model_type: 'gemma2' };
    assert.equal(decoderConfig(gemma).head.softcap, 30);
    assert.equal(decoderConfig({ ...gemma, final_logit_softcapping: null }).head.softcap, 0);
    assert.equal(attentionOf(decoderConfig(gemma)).headSize, 256);
    assert.equal(attentionOf(decoderConfig({ ...llama, num_key_value_heads: null })).numKeyValueHeads, 4);
  });

  it('reads mixtures of experts, with their defaults', () => {
    const mlpsOf = (source: Record<string, unknown>) =>
      decoderConfig({ ...tiny, ...source }).layers.map(({ mlp: { intermediateSize, experts } }) =>
        experts ? [intermediateSize, experts.count, experts.perToken, experts.isNormalized] : intermediateSize,
      );
    const mixtral = { model_type: 'mixtral' };
    assert.deepEqual(mlpsOf(mixtral), Array(3).fill([160, 8, 2, true]));
    assert.deepEqual(attentionOf(decoderConfig({ ...tiny, ...mixtral })).rope?.theta, 1e6);
    assert.deepEqual(windowsOf(decoderConfig({ ...tiny, ...mixtral, sliding_window: 7 })), [7, 7, 7]);
    const qwen = { model_type: 'qwen3_moe' };
    assert.deepEqual(mlpsOf(qwen), Array(3).fill([768, 128, 8, false]));
    const some = { num_experts: 16, decoder_sparse_step: 2, mlp_only_layers: [0], norm_topk_prob: true };
    assert.deepEqual(mlpsOf({ ...qwen, ...some }), [160, [768, 16, 8, true], 160]);
    assert.deepEqual(mlpsOf({ ...qwen, mlp_only_layers: [1] })[1], 160);
    assert.deepEqual(mlpsOf({ ...qwen, num_local_experts: 9 })[0], [768, 9, 8, false]);
    assert.deepEqual(windowsOf(decoderConfig({ ...tiny, ...qwen, sliding_window: 7 })), [0, 0, 0]);
    assert.deepEqual(mlpsOf({ model_type: 'olmoe' }), Array(3).fill([160, 64, 8, false]));
    assert.equal(attentionOf(decoderConfig({ ...tiny, model_type: 'olmoe' })).qkNorm, 'all');
    assert.throws(
      () => decoderConfig({ ...tiny, ...mixtral }, { quantization: 'nf4' }),
      /quantization must be null for a mixture of experts, got 'nf4'/,
    );
  });

  for (const [model, field, value] of [
    ['llama', 'mlp_bias', true],
    ['llama', 'hidden_act', 'relu'],
    ['llama', 'attention_dropout', 0.1],
    ['llama', 'sliding_window', 5],
    ['llama', 'pretraining_tp', 0],
    ['llama', 'layer_types', ['full_attention', 'sliding_attention', 'full_attention']],
    ['llama', 'quantization_config', { bits: 4 }],
    ['llama', 'logit_scale', 0.5],
    ['llama', 'partial_rotary_factor', 0.5],
    ['llama', 'num_key_value_heads', 3],
    ['llama', 'vocab_size', 1.5],
    ['llama', 'tie_word_embeddings', 'yes'],
    ['mistral', 'attention_bias', true],
    ['qwen3', 'layer_types', ['full_attention']],
    ['smollm3', 'no_rope_layers', [1, 1]],
    ['smollm3', 'no_rope_layers', [1, 1, 2]],
    ['smollm3', 'no_rope_layers', []],
    ['smollm3', 'no_rope_layer_interval', 0],
    ['smollm3', 'layer_types', ['full_attention', 'full_attention', 'sliding_attention']],
    ['granite', 'sliding_window', 5],
    ['granite', 'residual_multiplier', 0],
    ['granite', 'logits_scaling', '8'],
    ['granite', 'attention_dropout', 0.1],
    ['seed_oss', 'attention_dropout', 0.1],
    ['seed_oss', 'residual_dropout', 0.1],
    ['seed_oss', 'mlp_bias', 1],
    ['ernie4_5', 'attention_bias', true],
    ['ernie4_5', 'mlp_bias', true],
    ['ernie4_5', 'rope_scaling', { type: 'longrope' }],
    ['hunyuan_v1_dense', 'mlp_bias', true],
    ['olmo3', 'rope_parameters', { rope_theta: 5e5 }],
    ['olmo3', 'rope_theta', 1e4],
    ['olmo3', 'sliding_window', 0],
    ['phi3', 'resid_pdrop', 0.1],
    ['phi3', 'attention_bias', true],
    ['phi3', 'rope_scaling', { type: 'linear', factor: 2 }],
    ['phi3', 'rope_scaling', { type: 'longrope', short_factor: [1], long_factor: [1, 'x'] }],
    ['phi3', 'rope_scaling', { type: 'su', short_factor: [1], long_factor: [1] }],
    ['phi3', 'partial_rotary_factor', 0.01],
    ['glm4', 'partial_rotary_factor', 1.5],
    ['ministral3', 'rope_parameters', { rope_type: 'default', rope_theta: 1e6 }],
    ['ministral3', 'attention_bias', true],
    ['ministral3', 'layer_types', ['full_attention']],
    ['gemma4_text', 'hidden_size_per_layer_input', 256],
    ['gemma4_text', 'num_kv_shared_layers', 2],
    ['gemma4_text', 'enable_moe_block', true],
    ['gemma4_text', 'use_bidirectional_attention', 'all'],
    ['gemma4_text', 'rope_parameters', { rope_theta: 1e6 }],
    ['gemma4_text', 'per_layer_config', { 3: { head_dim: 16 } }],
    ['gemma4_text', 'per_layer_config', { 1: { head_dim: 32 } }],
    ['gemma4_text', 'per_layer_config', { 1: { num_key_value_heads: 3 } }],
    ['gemma4_text', 'per_layer_config', { 1: { intermediate_size: 3 } }],
    ['mixtral', 'output_router_logits', true],
    ['mixtral', 'router_jitter_noise', 0.1],
    ['mixtral', 'num_experts_per_tok', 9],
    ['mixtral', 'attention_bias', true],
    ['mixtral', 'sliding_window', 0],
    ['qwen3_moe', 'output_router_logits', true],
    ['qwen3_moe', 'mlp_only_layers', 1],
    ['qwen3_moe', 'decoder_sparse_step', 0],
    ['qwen3_moe', 'num_experts', '8'],
    ['olmoe', 'clip_qkv', 8],
    ['olmoe', 'norm_topk_prob', 1],
    ['glm4', 'mlp_bias', true],
    ['glm4', 'sliding_window', 5],
    ['hunyuan_v1_dense', 'sliding_window', 5],
    ['gemma2', 'hidden_activation', 'gelu'],
    ['gemma2', 'use_bidirectional_attention', true],
  ] as const) {
    it(`refuses ${model} with ${field} ${JSON.stringify(value)}`, () => {
      assert.throws(
        () => {
          const others = model === 'gemma4_text' ? { hidden_size_per_layer_input: 0, head_dim: 16 } : {};
          decoderConfig({ ...tiny, ...others, max_position_embeddings: 64, model_type: model, [field]: value });
        },
        new RegExp(`config.json: ${field === 'rope_scaling' ? '(rope_parameters|rope_scaling)' : field}`),
      );
    });
  }

  it('refuses unknown rope fields and families', () => {
    assert.throws(
      () => decoderConfig({ ...llama, rope_scaling: { type: 'longrope', factor: 4 } }),
      /rope_type .*longrope/,
    );
    assert.throws(
      () => decoderConfig({ ...llama, rope_scaling: { type: 'linear', factor: 4, mrope_section: [1] } }),
      /rope_parameters: mrope_section/,
    );
    assert.throws(() => decoderConfig({ ...tiny, model_type: 'constructor' }), /model_type 'constructor' is none of/);
  });
});

it('a config of more layers than any model has is refused before memory is taken', () => {
  assert.throws(
    () => decoderConfig({ ...llama, num_hidden_layers: 1e9 }),
    /config\.json: num_hidden_layers must be at most 10000, got 1000000000/,
  );
});
