// Configurations as the Hub has them: what loads, as what, and what is refused. Fields that are alike everywhere are left out.
import assert from 'node:assert/strict';
import { type DecoderConfig, decoderConfig, type HuggingFaceConfig } from '../../lib/index.ts';

/** [hidden, intermediate, layers, heads, key/value heads, vocabulary] */
type Sizes = [number, number, number, number, number, number];

const of = (type: string, [C, F, L, H, G, V]: Sizes, fields: HuggingFaceConfig = {}): HuggingFaceConfig => ({
  architectures: [`${type[0]!.toUpperCase()}${type.slice(1)}ForCausalLM`],
  attention_dropout: 0.0,
  bos_token_id: 1,
  eos_token_id: 2,
  hidden_act: type === 'gemma2' ? 'gelu_pytorch_tanh' : 'silu',
  hidden_size: C,
  initializer_range: 0.02,
  intermediate_size: F,
  model_type: type,
  num_attention_heads: H,
  num_hidden_layers: L,
  num_key_value_heads: G,
  rms_norm_eps: 1e-5,
  torch_dtype: 'bfloat16',
  transformers_version: '4.40.1',
  use_cache: true,
  vocab_size: V,
  ...fields,
});

const llama31 = {
  factor: 8,
  low_freq_factor: 1,
  high_freq_factor: 4,
  original_max_position_embeddings: 8192,
  rope_type: 'llama3',
};
const ones = (count: number, value: number) => new Array<number>(count).fill(value);
const noWindow = { use_sliding_window: false, max_window_layers: 28 };
const layers = (count: number, type = 'full_attention') => new Array<string>(count).fill(type);
const gemma = {
  head_dim: 256,
  hidden_activation: 'gelu_pytorch_tanh',
  attention_bias: false,
  attn_logit_softcapping: 50,
  final_logit_softcapping: 30,
  sliding_window: 4096,
  cache_implementation: 'hybrid',
};

/** What is expected: head size, type of the rotary positions and theta, whether tied, and how many layers have which window. */
// biome-ignore format: one line a model
const loads: [
  name: string,
  config: HuggingFaceConfig,
  headSize: number,
  rope: string,
  tied: boolean,
  windows: string,
][] = [
  ['Mixtral-8x7B', of('mixtral', [4096, 14336, 32, 32, 8, 32000], { max_position_embeddings: 32768, num_experts_per_tok: 2, num_local_experts: 8, output_router_logits: false, rope_theta: 1e6, router_aux_loss_coef: 0.02, sliding_window: null, tie_word_embeddings: false }), 128, 'default 1000000', false, ''],
  ['Qwen3-30B-A3B', of('qwen3_moe', [2048, 6144, 48, 32, 4, 151936], { architectures: ['Qwen3MoeForCausalLM'], attention_bias: false, decoder_sparse_step: 1, head_dim: 128, max_window_layers: 48, mlp_only_layers: [], moe_intermediate_size: 768, norm_topk_prob: true, num_experts: 128, num_experts_per_tok: 8, output_router_logits: false, rms_norm_eps: 1e-6, rope_scaling: null, rope_theta: 1e6, router_aux_loss_coef: 0.001, sliding_window: null, tie_word_embeddings: false, use_sliding_window: false }), 128, 'default 1000000', false, ''],
  ['OLMoE-1B-7B', of('olmoe', [2048, 1024, 16, 16, 16, 50304], { attention_bias: false, clip_qkv: null, norm_topk_prob: false, num_experts: 64, num_experts_per_tok: 8, output_router_logits: false, rope_scaling: null, rope_theta: 10000, router_aux_loss_coef: 0.01, tie_word_embeddings: false }), 128, 'default 10000', false, ''],
  ['Llama-2-7b', of('llama', [4096, 11008, 32, 32, 32, 32000], { pretraining_tp: 1, rope_scaling: null, tie_word_embeddings: false }), 128, 'default 10000', false, ''],
  ['Llama-2-13b', of('llama', [5120, 13824, 40, 40, 40, 32000], { pretraining_tp: 2, pad_token_id: 0, _name_or_path: 'meta-llama/Llama-2-13b-hf' }), 128, 'default 10000', false, ''],
  ['CodeLlama-7b', of('llama', [4096, 11008, 32, 32, 32, 32016], { rope_theta: 1000000, pretraining_tp: 1 }), 128, 'default 1000000', false, ''],
  ['Llama-3-8B-Instruct-Gradient-1048k', of('llama', [4096, 14336, 32, 32, 8, 128256], { rope_theta: 2804339835, attention_bias: false }), 128, 'default 2804339835', false, ''],
  ['Llama-3.1-8B-Instruct', of('llama', [4096, 14336, 32, 32, 8, 128256], { rope_theta: 5e5, rope_scaling: llama31, eos_token_id: [128001, 128008, 128009], mlp_bias: false }), 128, 'llama3 500000', false, ''],
  ['Llama-3.2-1B', of('llama', [2048, 8192, 16, 32, 8, 128256], { head_dim: 64, rope_theta: 5e5, rope_scaling: { ...llama31, factor: 32 }, tie_word_embeddings: true }), 64, 'llama3 500000', true, ''],
  ['unsloth/Llama-3.2-3B', of('llama', [3072, 8192, 28, 24, 8, 128256], { head_dim: 128, rope_theta: 5e5, rope_scaling: { ...llama31, factor: 32 }, tie_word_embeddings: true, unsloth_fixed: true, unsloth_version: '2024.9' }), 128, 'llama3 500000', true, ''],
  ['TinyLlama-1.1B', of('llama', [2048, 5632, 22, 32, 4, 32000], { attention_bias: false, pretraining_tp: 1 }), 64, 'default 10000', false, ''],
  ['vicuna-13b-v1.5-16k', of('llama', [5120, 13824, 40, 40, 40, 32000], { rope_scaling: { factor: 4, type: 'linear' }, max_sequence_length: 16384, tokenizer_class: 'LlamaTokenizer' }), 128, 'linear 10000', false, ''],
  ['deepseek-coder-6.7b', of('llama', [4096, 11008, 32, 32, 32, 32256], { rope_theta: 100000, rope_scaling: { factor: 4, type: 'linear' } }), 128, 'linear 100000', false, ''],
  ['Yi-1.5-9B', of('llama', [4096, 11008, 48, 32, 4, 64000], { rope_theta: 5e6, max_position_embeddings: 4096, attention_bias: false }), 128, 'default 5000000', false, ''],
  ['Yarn-Llama-2-7b-64k', of('llama', [4096, 11008, 32, 32, 32, 32000], { auto_map: { AutoConfig: 'configuration_llama.LlamaConfig' }, max_position_embeddings: 65536, rope_scaling: { factor: 16, finetuned: true, original_max_position_embeddings: 4096, type: 'yarn' } }), 128, 'yarn 10000', false, ''],
  ['SmolLM-135M', of('llama', [576, 1536, 30, 9, 3, 49152], { rope_theta: 10000, tie_word_embeddings: true, attention_bias: false }), 64, 'default 10000', true, ''],
  ['SmolLM2-1.7B-Instruct', of('llama', [2048, 8192, 24, 32, 32, 49152], { is_llama_config: true, rope_interleaved: false, rope_theta: 130000, tie_word_embeddings: true, 'transformers.js_config': { dtype: 'q4' } }), 64, 'default 130000', true, ''],
  ["SmolVLM's text model", of('llama', [960, 2560, 32, 15, 5, 49280], { head_dim: 64, is_llama_config: true, neftune_noise_alpha: 0.0, qk_layer_norms: false, rope_interleaved: false, rope_theta: 100000, use_resampler: false }), 64, 'default 100000', false, ''],
  ['Falcon3-7B', of('llama', [3072, 23040, 28, 12, 4, 131072], { activation: 'swiglu', head_dim: 256, rope_theta: 1000042, attention_bias: false, mlp_bias: false }), 256, 'default 1000042', false, ''],
  ['open_llama_3b', of('llama', [3200, 8640, 26, 32, 32, 32000], { torch_dtype: 'float16' }), 100, 'default 10000', false, ''],
  ['llama, as transformers 5 writes it', of('llama', [2048, 8192, 16, 32, 8, 128256], { dtype: 'bfloat16', torch_dtype: undefined, rope_parameters: { ...llama31, rope_theta: 5e5 }, layer_types: layers(16), pad_token_id: null, use_bidirectional_attention: null }), 64, 'llama3 500000', false, ''],
  ['Mistral-7B-v0.1', of('mistral', [4096, 14336, 32, 32, 8, 32000], { rope_theta: 10000, sliding_window: 4096 }), 128, 'default 10000', false, '32x4096'],
  ['zephyr-7b-beta', of('mistral', [4096, 14336, 32, 32, 8, 32000], { sliding_window: 4096, pad_token_id: 2, _name_or_path: 'data/dpo' }), 128, 'default 10000', false, '32x4096'],
  ['Mistral-Nemo-Base-2407', of('mistral', [5120, 14336, 40, 32, 8, 131072], { head_dim: 128, rope_theta: 1e6, sliding_window: null }), 128, 'default 1000000', false, ''],
  ['Mistral-Small-24B-2501', of('mistral', [5120, 32768, 40, 32, 8, 131072], { head_dim: 128, rope_theta: 1e8, sliding_window: null, attention_bias: false }), 128, 'default 100000000', false, ''],
  ['Ministral-8B-Instruct-2410', of('mistral', [4096, 12288, 36, 32, 8, 131072], { head_dim: 128, rope_theta: 1e8, sliding_window: 32768, layer_types: Array.from({ length: 36 }, (_, i) => (i % 4 === 0 ? 'full_attention' : 'sliding_attention')) }), 128, 'default 100000000', false, '27x32768'],
  ['Yarn-Mistral-7b-128k', of('mistral', [4096, 14336, 32, 32, 8, 32000], { sliding_window: 131072, max_sequence_length: 131072, max_position_embeddings: 131072, rope_scaling: { factor: 16, finetuned: true, original_max_position_embeddings: 8192, type: 'yarn' } }), 128, 'yarn 10000', false, '32x131072'],
  ['Qwen2-0.5B', of('qwen2', [896, 4864, 24, 14, 2, 151936], { ...noWindow, rope_theta: 1e6, sliding_window: 131072, tie_word_embeddings: true }), 64, 'default 1000000', true, ''],
  ['Qwen2.5-7B-Instruct-1M', of('qwen2', [3584, 18944, 28, 28, 4, 152064], { ...noWindow, rope_theta: 1e7, sliding_window: 32768, dual_chunk_attention_config: { chunk_size: 262144, local_size: 8192, original_max_position_embeddings: 262144 } }), 128, 'default 10000000', false, ''],
  ['DeepSeek-R1-Distill-Qwen-1.5B', of('qwen2', [1536, 8960, 28, 12, 2, 151936], { ...noWindow, max_window_layers: 21, sliding_window: 4096, use_mrope: false }), 128, 'default 10000', false, ''],
  ['a qwen2 that an SFT run has saved', of('qwen2', [1536, 8960, 28, 12, 2, 151936], { ...noWindow, attention_bias: false, mlp_bias: false, neftune_noise_alpha: 5, num_labels: 2, layer_types: layers(28), quantization_config: {}, sliding_window: null }), 128, 'default 10000', false, ''],
  ['Qwen2.5-7B with YaRN', of('qwen2', [3584, 18944, 28, 28, 4, 152064], { ...noWindow, rope_theta: 1e6, sliding_window: 131072, max_position_embeddings: 131072, rope_scaling: { factor: 4, original_max_position_embeddings: 32768, type: 'yarn', rope_type: 'yarn' } }), 128, 'yarn 1000000', false, ''],
  ['Qwen3-0.6B', of('qwen3', [1024, 3072, 28, 16, 8, 151936], { ...noWindow, attention_bias: false, head_dim: 128, rope_theta: 1e6, rope_scaling: null, sliding_window: null, tie_word_embeddings: true }), 128, 'default 1000000', true, ''],
  ['Qwen3-Embedding-0.6B', of('qwen3', [1024, 3072, 28, 16, 8, 151669], { ...noWindow, architectures: ['Qwen3ForCausalLM'], head_dim: 128, rope_theta: 1e6, tie_word_embeddings: true }), 128, 'default 1000000', true, ''],
  ['DeepSeek-R1-0528-Qwen3-8B', of('qwen3', [4096, 12288, 36, 32, 8, 151936], { ...noWindow, head_dim: 128, rope_theta: 1e6, max_position_embeddings: 131072, rope_scaling: { rope_type: 'yarn', factor: 4, original_max_position_embeddings: 32768, attn_factor: 0.8782488562869419 }}), 128, 'yarn 1000000', false, ''],
  ['SmolLM3-3B', of('smollm3', [2048, 11008, 36, 16, 4, 128256], { attention_bias: false, eos_token_id: 128012, layer_types: layers(36), max_window_layers: 28, mlp_bias: false, no_rope_layer_interval: 4, no_rope_layers: Array.from({ length: 36 }, (_, i) => (i % 4 === 3 ? 0 : 1)), pretraining_tp: 2, rope_scaling: null, rope_theta: 5e6, sliding_window: null, tie_word_embeddings: true, use_sliding_window: false }), 128, 'default 5000000', true, ''],
  ['SmolLM3-3B with YaRN', of('smollm3', [2048, 11008, 36, 16, 4, 128256], { max_position_embeddings: 131072, rope_scaling: { factor: 2, original_max_position_embeddings: 65536, type: 'yarn' }, rope_theta: 5e6 }), 128, 'yarn 5000000', true, ''],
  ['granite-3.3-2b-instruct', of('granite', [2048, 8192, 40, 32, 8, 49159], { attention_bias: false, attention_multiplier: 0.015625, embedding_multiplier: 12, eos_token_id: 0, logits_scaling: 8, max_position_embeddings: 131072, mlp_bias: false, residual_multiplier: 0.22, rope_scaling: null, rope_theta: 1e7, tie_word_embeddings: true }), 64, 'default 10000000', true, ''],
  ['gemma-3-1b-it', of('gemma3_text', [1152, 6912, 26, 4, 1, 262144], { architectures: ['Gemma3ForCausalLM'], attention_bias: false, attn_logit_softcapping: null, cache_implementation: 'hybrid', eos_token_id: [1, 106], final_logit_softcapping: null, head_dim: 256, hidden_act: undefined, hidden_activation: 'gelu_pytorch_tanh', max_position_embeddings: 32768, query_pre_attn_scalar: 256, rope_local_base_freq: 10000, rope_scaling: null, rope_theta: 1e6, sliding_window: 512, sliding_window_pattern: 6 }), 256, 'default 10000', true, '22x512'],
  ['OLMo-2-1124-7B', of('olmo2', [4096, 11008, 32, 32, 32, 100352], { attention_bias: false, eos_token_id: 100257, max_position_embeddings: 4096, pad_token_id: 100277, rope_scaling: null, rope_theta: 5e5, tie_word_embeddings: false }), 128, 'default 500000', false, ''],
  ['EXAONE-4.0-32B', of('exaone4', [5120, 27392, 64, 40, 8, 102400], { head_dim: 128, layer_types: Array.from({ length: 64 }, (_, i) => (i % 4 === 3 ? 'full_attention' : 'sliding_attention')), max_position_embeddings: 131072, rope_scaling: { factor: 16, high_freq_factor: 4, low_freq_factor: 1, original_max_position_embeddings: 8192, rope_type: 'llama3' }, rope_theta: 1e6, sliding_window: 4096, sliding_window_pattern: 'LLLG', tie_word_embeddings: false }), 128, 'llama3 1000000', false, '48x4096'],
  ['Phi-3.5-mini-instruct', of('phi3', [3072, 8192, 32, 32, 32, 32064], { attention_bias: false, embd_pdrop: 0, max_position_embeddings: 131072, original_max_position_embeddings: 4096, resid_pdrop: 0, rope_scaling: { long_factor: ones(48, 8), short_factor: ones(48, 1), type: 'longrope' }, rope_theta: 1e4, sliding_window: 262144, tie_word_embeddings: false, auto_map: { AutoModelForCausalLM: 'modeling_phi3.Phi3ForCausalLM' } }), 96, 'longrope 10000', false, '32x262144'],
  ['phi-4', of('phi3', [5120, 17920, 40, 40, 10, 100352], { attention_bias: false, embd_pdrop: 0, max_position_embeddings: 16384, original_max_position_embeddings: 16384, resid_pdrop: 0, rope_scaling: null, rope_theta: 250000, sliding_window: null, tie_word_embeddings: false }), 128, 'default 250000', false, ''],
  ['Phi-4-mini-instruct', of('phi3', [3072, 8192, 32, 24, 8, 200064], { attention_bias: false, embd_pdrop: 0, full_attn_mod: 1, interpolate_factor: 1, lm_head_bias: false, max_position_embeddings: 131072, mlp_bias: false, original_max_position_embeddings: 4096, partial_rotary_factor: 0.75, resid_pdrop: 0, rope_scaling: { long_factor: ones(48, 8), short_factor: ones(48, 1), type: 'longrope' }, rope_theta: 1e4, sliding_window: 262144, tie_word_embeddings: true }), 128, 'longrope 10000', true, '32x262144'],
  ['GLM-4-9B-0414', of('glm4', [4096, 13696, 40, 32, 2, 151552], { attention_bias: false, eos_token_id: [151329, 151336, 151338], head_dim: 128, max_position_embeddings: 32768, partial_rotary_factor: 0.5, rope_theta: 1e4, tie_word_embeddings: false }), 128, 'default 10000', false, ''],
  ['Olmo-3-1025-7B', of('olmo3', [4096, 11008, 32, 32, 32, 100278], { attention_bias: false, layer_types: Array.from({ length: 32 }, (_, i) => (i % 4 === 3 ? 'full_attention' : 'sliding_attention')), max_position_embeddings: 65536, rope_scaling: { attention_factor: 1.2079441541679836, beta_fast: 32, beta_slow: 1, factor: 8, original_max_position_embeddings: 8192, rope_type: 'yarn' }, rope_theta: 5e5, sliding_window: 4096, tie_word_embeddings: false }), 128, 'default 500000', false, '24x4096'],
  ['ERNIE-4.5-0.3B-PT', of('ernie4_5', [1024, 3072, 18, 16, 2, 103424], { architectures: ['Ernie4_5ForCausalLM'], head_dim: 128, rope_theta: 5e5, tie_word_embeddings: true, use_bias: false, use_rmsnorm: true }), 128, 'default 500000', true, ''],
  ['Hunyuan-7B-Instruct', of('hunyuan_v1_dense', [4096, 14336, 32, 32, 8, 128167], { architectures: ['HunYuanDenseV1ForCausalLM'], add_classification_head: false, attention_bias: false, attention_head_dim: 128, cla_share_factor: 2, class_num: 0, dense_list: [4096, 0], eod_token_id: 127957, head_dim: 128, im_end_id: 5, mask_init_id: 12, max_position_embeddings: 32768, mlp_bias: false, norm_type: 'rms', num_experts: 1, pool_type: 'last', pretraining_tp: 1, rope_scaling: { alpha: 1000, beta_fast: 32, beta_slow: 1, factor: 1, mscale: 1, mscale_all_dim: 1, type: 'dynamic' }, rope_theta: 1e4, tie_word_embeddings: true, use_cla: false, use_qk_norm: true, use_rotary_pos_emb: true }), 128, 'dynamic 10000', true, ''],
  ['gemma-2-2b-it', of('gemma2', [2304, 9216, 26, 8, 4, 256000], { ...gemma, query_pre_attn_scalar: 256, eos_token_id: [1, 107] }), 256, 'default 10000', true, '13x4096'],
  ['gemma-2-27b', of('gemma2', [4608, 36864, 46, 32, 16, 256000], { ...gemma, head_dim: 128, query_pre_attn_scalar: 144, sliding_window_size: 4096, _attn_implementation: 'eager' }), 128, 'default 10000', true, '23x4096'],
  ['gemma-2, as transformers 5 writes it', of('gemma2', [2304, 9216, 26, 8, 4, 256000], { ...gemma, rope_parameters: { rope_theta: 10000, rope_type: 'default' }, mlp_bias: false, use_bidirectional_attention: null, layer_types: Array.from({ length: 26 }, (_, i) => (i % 2 === 0 ? 'sliding_attention' : 'full_attention')) }), 256, 'default 10000', true, '13x4096'],
];

const attentionOf = ({ layers }: DecoderConfig) => layers[0]!.attention;
const windowsOf = ({ layers }: DecoderConfig) => layers.map(({ attention }) => attention.window);

describe('public configurations', () => {
  for (const [name, source, headSize, rope, tied, windows] of loads) {
    it(name, () => {
      const config = decoderConfig(source);
      const attention = attentionOf(config);
      const sliding = windowsOf(config).filter((window) => window > 0);
      assert.deepEqual(
        [attention.headSize, `${attention.rope?.type} ${attention.rope?.theta}`, config.tieWordEmbeddings],
        [headSize, rope, tied],
      );
      assert.equal(
        sliding.length > 0 ? `${sliding.length}x${new Set(sliding).size === 1 ? sliding[0] : sliding}` : '',
        windows,
      );
      assert.equal(attention.bias, source.model_type === 'qwen2');
      assert.equal(config.source, source);
    });
  }

  it('say which layers have the window', () => {
    const ministral = loads.find(([name]) => name.startsWith('Ministral'))![1];
    assert.deepEqual(windowsOf(decoderConfig(ministral)).slice(0, 5), [0, 32768, 32768, 32768, 0]);
  });

  it('give yarn the factor that transformers computes, whatever attn_factor says', () => {
    const { rope } = attentionOf(decoderConfig(loads.find(([name]) => name.startsWith('DeepSeek-R1-0528'))![1]));
    assert.ok(rope?.type === 'yarn' && Math.abs(rope.attentionFactor - (0.1 * Math.log(4) + 1)) < 1e-15);
  });
});

describe('fields of a config', () => {
  const tiny = of('llama', [64, 160, 3, 4, 2, 500]);

  it('pass where they are null, false or empty, or 0 for a dropout', () => {
    const fields = { a: null, b: false, c: '', d: [], e: {}, hidden_dropout: 0, resid_pdrop: 0.0, logits_scaling: 1.0 };
    for (const model_type of ['llama', 'mistral', 'qwen2', 'qwen3', 'gemma2']) {
      const source = { ...tiny, model_type, architectures: null, hidden_act: undefined, head_dim: 16 };
      const { source: _, ...plain } = decoderConfig(source);
      const { source: __, ...more } = decoderConfig({ ...source, ...fields, attention_bias: false, mlp_bias: false });
      assert.deepEqual(more, plain);
    }
  });

  for (const [field, value, isKnown] of [
    ['rope_interleaved', true],
    ['is_causal', false, 'known'],
    ['use_rope', false, 'known'],
    ['logits_scaling', 8, 'known'],
    ['residual_multiplier', 0.22, 'known'],
    ['embedding_multiplier', 12, 'known'],
    ['scale_emb', 12, 'known'],
    ['hidden_dropout', 0.1],
    ['num_local_experts', 8, 'known'],
    ['qk_layernorm', true],
    ['rope_condense_ratio', 8],
    ['text_config', { model_type: 'llama' }],
    ['no_rope_layers', [1, 1, 0]],
    ['dflash_config', { block_size: 8 }],
    ['rotary_pct', 0.25, 'known'],
    ['norm_type', 'layernorm', 'known'],
    ['sliding_window', 4096, 'known'],
  ] as const) {
    it(`are refused where they may change numbers, and ignored when asked; known ones are not saved then: ${field}`, () => {
      const source = { ...tiny, [field]: value };
      assert.throws(() => decoderConfig(source), new RegExp(`RangeError: config\\.json: ${field}`));
      const { source: kept, ...config } = decoderConfig(source, { ignoreFields: [field] });
      const { source: _, ...plain } = decoderConfig(tiny);
      assert.deepEqual(config, plain);
      assert.deepEqual(kept, isKnown ? tiny : source);
    });
  }

  it('are named in the refusal with the option that ignores them, however long they are', () => {
    assert.throws(
      () => decoderConfig({ ...tiny, foo: 3 }),
      /foo \(3\) is not known .* ignoreFields: \['foo'\] \(--ignore-fields foo\)/,
    );
    let deep: unknown = 1;
    for (let i = 0; i < 1e5; i++) deep = [deep];
    for (const [name, value] of [
      ['x'.repeat(1e6), 1],
      ['foo', 'y'.repeat(1e6)],
      ['foo', deep],
      ['hidden_act', deep],
      ['layer_types', deep],
    ] as const) {
      assert.throws(
        () => decoderConfig({ ...tiny, [name]: value }),
        (error: Error) =>
          error instanceof RangeError && /^config\.json: /.test(error.message) && error.message.length < 600,
      );
    }
  });

  it('of a switched-off quantisation are not written either', () => {
    const off = { load_in_4bit: false, load_in_8bit: false };
    assert.deepEqual(decoderConfig({ ...tiny, quantization_config: off }).source, tiny);
  });

  for (const [field, value, others] of [
    [
      'architectures',
      ['LlamaForSequenceClassification'],
      [['LlamaForCausalLM'], ['LLaMAForCausalLM'], ['LlamaModel'], [], null],
    ],
    ['architectures', ['LlamaForCausalLM', 'MistralForCausalLM'], []],
    ['architectures', ['LlamaForCausalLMEagle3'], []],
    ['architectures', 'Llama', ['LlamaForCausalLM']],
    ['auto_map', { AutoModelForCausalLM: 'somebody/repo--modeling_x.XForCausalLM' }, [{}, null]],
    ['auto_map', { AutoModel: 'modeling_x.LlamaEncoderModel' }, [{ AutoConfig: 'configuration_x.XConfig' }]],
    [
      'auto_map',
      { AutoModelForCausalLM: 7 },
      [{ AutoModelForCausalLM: 'togethercomputer/x--modeling_flash_llama.LlamaForCausalLM' }],
    ],
    ['pruned_heads', { 1: [0, 2] }, [{}, null]],
    ['loss_type', 'ForMaskedLM', ['ForCausalLM', null]],
  ] as [string, unknown, unknown[]][]) {
    it(`that say what the weights are of, ${field} ${JSON.stringify(value)}, are refused`, () => {
      assert.throws(
        () => decoderConfig({ ...tiny, [field]: value }),
        (error: Error) => {
          assert.match(error.message, new RegExp(`^config\\.json: ${field}.*ignoreFields: \\['${field}'\\]`));
          return error instanceof RangeError;
        },
      );
      assert.equal(decoderConfig({ ...tiny, [field]: value }, { ignoreFields: [field] }).vocabSize, 500);
      for (const other of others) assert.equal(decoderConfig({ ...tiny, [field]: other }).vocabSize, 500);
    });
  }

  it('within rope_scaling likewise', () => {
    const source = { ...tiny, rope_scaling: { type: 'linear', factor: 2, mystery: 1 } };
    assert.throws(() => decoderConfig(source), /rope_parameters: mystery/);
    const config = decoderConfig(source, { ignoreFields: ['mystery', 'model_type'] });
    assert.deepEqual(attentionOf(config).rope, { type: 'linear', theta: 10000, factor: 2 });
    assert.deepEqual(config.source, { ...tiny, rope_scaling: { type: 'linear', factor: 2 } });
    const { source: plain } = decoderConfig(source, { ignoreFields: ['rope_scaling'] });
    assert.deepEqual(plain, tiny);
  });

  for (const [name, rope, message] of [
    [
      'longrope',
      { rope_scaling: { rope_type: 'longrope', long_factor: [1], short_factor: [1] } },
      /rope_type must be .* got "longrope"/,
    ],
    ['su', { rope_scaling: { type: 'su', long_factor: [1] } }, /rope_type must be .* got "su"/],
    ['mrope', { rope_scaling: { type: 'mrope', mrope_section: [16, 24, 24] } }, /rope_type must be .* got "mrope"/],
    [
      'two thetas',
      { rope_theta: 1e4, rope_parameters: { rope_theta: 1e6 } },
      /rope_theta must be that of rope_parameters, 1000000, got 10000/,
    ],
    [
      'two factors',
      { rope_scaling: { type: 'linear', factor: 2 }, rope_parameters: { type: 'linear', factor: 4 } },
      /rope_scaling\.factor must be that of rope_parameters, 4, got 2/,
    ],
    [
      'positions by kind of layer',
      { rope_parameters: { full_attention: { rope_theta: 1 }, sliding_attention: { rope_theta: 2 } } },
      /rope_parameters: full_attention/,
    ],
    [
      'part of the head',
      { rope_parameters: { partial_rotary_factor: 0.5 } },
      /partial_rotary_factor must be 1, got 0\.5/,
    ],
    ['no factor', { rope_scaling: { type: 'linear' } }, /factor must be a number, got undefined/],
    ['a list', { rope_scaling: [1] }, /rope_scaling must be an object, got \[1\]/],
  ] as [string, HuggingFaceConfig, RegExp][]) {
    it(`of rotary positions that are not read are refused: ${name}`, () => {
      assert.throws(() => decoderConfig({ ...tiny, ...rope }), message);
    });
  }

  for (const [name, field, value, message] of [
    [
      'bitsandbytes, 4 bits',
      'quantization_config',
      { quant_method: 'bitsandbytes', load_in_4bit: true, load_in_8bit: false },
      /quantised weights \(bitsandbytes, 4 bits, bnb_4bit_quant_type "fp4", only nf4 is read, bnb_4bit_use_double_quant false, only true is read\)/,
    ],
    [
      'bitsandbytes, 8 bits',
      'quantization_config',
      { quant_method: 'bitsandbytes', load_in_8bit: true },
      /quantised weights \(bitsandbytes, 8 bits\)/,
    ],
    [
      'GPTQ',
      'quantization_config',
      { quant_method: 'gptq', bits: 4, group_size: 128 },
      /quantised weights \(gptq, 4 bits\)/,
    ],
    ['fp8', 'quantization_config', { quant_method: 'fp8', weight_block_size: [128, 128] }, /quantised weights \(fp8\)/],
    [
      'compressed-tensors',
      'compression_config',
      { quant_method: 'compressed-tensors', config_groups: {} },
      /quantised weights \(compressed-tensors\)/,
    ],
    ['MLX', 'quantization', { group_size: 64, bits: 4 }, /quantised weights \(unknown method, 4 bits\)/],
  ] as const) {
    it(`of quantised weights are refused, with the method and what to do: ${name}`, () => {
      const source = { ...tiny, [field]: value };
      assert.throws(() => decoderConfig(source), message);
      assert.throws(() => decoderConfig(source), /use the model that they were made from/);
      assert.deepEqual(decoderConfig(source, { ignoreFields: [field] }).source, tiny);
    });
  }
});
