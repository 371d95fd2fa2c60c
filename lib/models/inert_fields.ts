// Fields of config.json that change no number of the models of these families: transformers does not read them, or reads them only for
// training or generation. If a field is inert only at one value, that value stands with its name.

/** Origin, storage, loading, training and sampling of a model. */
const INERT = new Set(
  `add_cross_attention attn_implementation bad_words_ids base_model base_model_name_or_path begin_suppress_tokens bos_token bos_token_id cache_implementation
  chunk_size_feed_forward cross_attention_hidden_size datasets decoder_start_token_id diversity_penalty do_sample dtype early_stopping
  encoder_no_repeat_ngram_size eos_token exponential_decay_length_penalty finetuning_task flash_attn forced_bos_token_id forced_eos_token_id
  generation_config gradient_checkpointing head_dtype id2label is_decoder is_encoder_decoder is_llama_config keys_to_ignore_at_inference
  label2id length_penalty license max_length max_new_tokens max_position_embeddings max_seq_len max_seq_length max_sequence_length
  max_window_layers min_length model_max_length model_name model_type neftune_noise_alpha no_repeat_ngram_size num_beam_groups num_beams num_labels
  num_return_sequences output_attentions output_hidden_states output_router_logits output_scores pad_token pad_token_id prefix
  problem_type remove_invalid_values rep_penalty repetition_penalty return_dict return_dict_in_generate
  router_aux_loss_coef seed sep_token_id seq_length suppress_tokens task_specific_params temperature tf_legacy_loss tie_encoder_decoder
  tokenizer_class tokenizer_model_max_length tokenizer_padding_side top_k top_p torch_dtype torchscript train_batch_size training_args
  transformers.js_config transformers_version typical_p unk_token_id use_bfloat16 use_cache use_flash_attention
  use_flash_attention_2 use_flash_attn use_reentrant`.split(/\s+/),
);

/** Inert at these values, in every family. */
const INERT_AT: Record<string, readonly unknown[]> = {
  activation: ['silu', 'swiglu'],
  embedding_multiplier: [1],
  expert_interval: [1],
  logit_scale: [1],
  loss_type: ['ForCausalLM'],
  logits_scaling: [1],
  num_experts: [0],
  num_local_experts: [0],
  position_embedding_type: ['rope', 'rotary'],
  residual_multiplier: [1],
  rotary_percent: [1],
  rotary_pct: [1],
  rope_pct: [1],
  scale_depth: [1],
  scale_emb: [1],
  norm_type: ['rmsnorm', 'rms_norm', 'RMSNorm'],
  use_rms_norm: [true],
  use_rope: [true],
  is_causal: [true],
  scale_attn_weights: [true],
};

/** These change numbers if they are false. */
const MATTERS_AT_FALSE = new Set([
  'is_causal',
  'scale_attn_weights',
  'use_rms_norm',
  'use_rope',
  'scale_attention',
  'causal',
]);

/** Whether a field that its family does not read changes no number. */
export function isInert(name: string, value: unknown): boolean {
  if (INERT.has(name) || isEmpty(value) || /^_|^unsloth_/.test(name)) return true;
  if (value === false) return !MATTERS_AT_FALSE.has(name);
  if (value === 0 && /drop/.test(name)) return true;
  return Object.hasOwn(INERT_AT, name) && INERT_AT[name]!.includes(value);
}

/** Whether a field is known to change numbers at some of its values. */
export function mayMatter(name: string): boolean {
  return Object.hasOwn(INERT_AT, name) || MATTERS_AT_FALSE.has(name);
}

/** Whether a value is null, '', [] or {}. */
export function isEmpty(value: unknown): boolean {
  if (value === null || value === undefined || value === '') return true;
  return typeof value === 'object' && Object.keys(value).length === 0;
}
