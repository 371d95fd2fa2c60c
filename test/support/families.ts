// The models that test/models tries every family with. docs/families.md counts them.

/** Fields of all small models of families.test.ts. */
export const tiny = {
  hidden_size: 12,
  intermediate_size: 20,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 6,
  vocab_size: 23,
  max_position_embeddings: 8,
  initializer_range: 0.3,
};
/** The fields that each has besides. */
export const sources = {
  llama: { model_type: 'llama', attention_bias: true },
  'llama, dynamic rope': { model_type: 'llama', rope_scaling: { type: 'dynamic', factor: 2 } },
  'llama, yarn': {
    model_type: 'llama',
    rope_scaling: { type: 'yarn', factor: 4, original_max_position_embeddings: 4, beta_fast: 2, beta_slow: 0.5 },
  },
  mistral: { model_type: 'mistral', sliding_window: 4 },
  qwen2: {
    model_type: 'qwen2',
    use_sliding_window: true,
    sliding_window: 5,
    max_window_layers: 1,
    tie_word_embeddings: true,
  },
  qwen3: { model_type: 'qwen3' },
  gemma2: {
    model_type: 'gemma2',
    sliding_window: 3,
    query_pre_attn_scalar: 5,
    attn_logit_softcapping: 0.8,
    final_logit_softcapping: 1.5,
  },
  smollm3: { model_type: 'smollm3', no_rope_layers: [0, 1], use_sliding_window: true, sliding_window: 4 },
  gemma3: {
    model_type: 'gemma3_text',
    sliding_window: 3,
    sliding_window_pattern: 2,
    query_pre_attn_scalar: 5,
    final_logit_softcapping: 1.5,
  },
  olmo2: { model_type: 'olmo2', attention_bias: true },
  exaone4: { model_type: 'exaone4', sliding_window: 4, sliding_window_pattern: 2 },
  seed_oss: { model_type: 'seed_oss', attention_out_bias: true, mlp_bias: true },
  ernie4_5: { model_type: 'ernie4_5', use_bias: true, tie_word_embeddings: false },
  hunyuan: {
    model_type: 'hunyuan_v1_dense',
    attention_bias: true,
    rope_scaling: { type: 'dynamic', factor: 1, alpha: 5 },
  },
  olmo3: {
    model_type: 'olmo3',
    sliding_window: 3,
    layer_types: ['sliding_attention', 'full_attention'],
    attention_bias: true,
    rope_parameters: {
      full_attention: { rope_type: 'linear', rope_theta: 50, factor: 2 },
      sliding_attention: { rope_type: 'default', rope_theta: 9 },
    },
  },
  'phi3, longrope': {
    model_type: 'phi3',
    partial_rotary_factor: 0.7,
    original_max_position_embeddings: 4,
    rope_scaling: { type: 'longrope', short_factor: [1, 1.5], long_factor: [2, 3] },
    sliding_window: 5,
    tie_word_embeddings: true,
  },
  glm4: { model_type: 'glm4', partial_rotary_factor: 0.34 },
  ministral3: {
    model_type: 'ministral3',
    sliding_window: 6,
    rope_parameters: {
      rope_type: 'yarn',
      rope_theta: 50,
      factor: 2,
      original_max_position_embeddings: 4,
      llama_4_scaling_beta: 0.7,
    },
  },
  gemma4: {
    model_type: 'gemma4_text',
    hidden_size_per_layer_input: 0,
    attention_k_eq_v: true,
    global_head_dim: 10,
    num_global_key_value_heads: 1,
    layer_types: ['sliding_attention', 'full_attention'],
    sliding_window: 3,
    final_logit_softcapping: 1.5,
  },
  granite: {
    model_type: 'granite',
    mlp_bias: true,
    embedding_multiplier: 1.7,
    attention_multiplier: 0.6,
    residual_multiplier: 0.3,
    logits_scaling: 0.7,
  },
};

/** Cases below test/fixtures/parity that whole_use.test.ts tries. */
export const used = [
  'smollm3',
  'granite',
  'gemma3',
  'olmo2',
  'exaone4',
  'seed_oss',
  'ernie4_5',
  'hunyuan',
  'olmo3',
  'phi3',
  'phi4mini',
  'glm4',
  'ministral3',
  '../gemma4',
];
