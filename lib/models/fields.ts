// Reading a config.json so that nothing in it is ignored: every field is read, known to change no number, or an error that names it.

/** A parsed config.json. */
export type HuggingFaceConfig = Record<string, unknown>;

/** Fields that say where a model comes from, how it is stored or how it is sampled: no loss depends on them. */
const HARMLESS = new Set(
  `_attn_implementation _attn_implementation_autoset _name_or_path add_cross_attention architectures attn_implementation auto_map
  bad_words_ids begin_suppress_tokens bos_token_id cache_implementation chunk_size_feed_forward cross_attention_hidden_size
  decoder_start_token_id diversity_penalty do_sample dtype early_stopping encoder_no_repeat_ngram_size exponential_decay_length_penalty
  finetuning_task forced_bos_token_id forced_eos_token_id gradient_checkpointing id2label is_decoder is_encoder_decoder label2id
  length_penalty max_length max_position_embeddings min_length model_type no_repeat_ngram_size num_beam_groups num_beams
  num_return_sequences output_attentions output_hidden_states output_scores pad_token_id prefix problem_type pruned_heads
  remove_invalid_values repetition_penalty return_dict return_dict_in_generate sep_token_id suppress_tokens task_specific_params
  temperature tf_legacy_loss tie_encoder_decoder tokenizer_class top_k top_p torch_dtype torchscript transformers.js_config
  transformers_version typical_p unk_token_id unsloth_fixed unsloth_version use_bfloat16 use_cache`.split(/\s+/),
);

/** The fields of one object of config.json; remembers which were read. */
export class Fields {
  readonly #source: HuggingFaceConfig;
  readonly #path: string;
  readonly #read = new Set<string>();

  constructor(source: HuggingFaceConfig, path = 'config.json') {
    this.#source = source;
    this.#path = path;
  }

  /** null counts as absent. */
  get(name: string): unknown {
    this.#read.add(name);
    return this.#source[name] ?? undefined;
  }

  /** Whether the field is there and null, which for some fields is not the default. */
  isNull(name: string): boolean {
    return this.#source[name] === null;
  }

  number(name: string, fallback?: number): number {
    const value = this.get(name) ?? fallback;
    if (typeof value !== 'number' || !Number.isFinite(value)) this.fail(name, value, 'a number');
    return value as number;
  }

  positive(name: string, fallback?: number): number {
    const value = this.number(name, fallback);
    if (!(value > 0)) this.fail(name, value, 'a positive number');
    return value;
  }

  /** A positive integer. */
  count(name: string, fallback?: number): number {
    const value = this.number(name, fallback);
    if (!Number.isInteger(value) || value < 1) this.fail(name, value, 'a positive integer');
    return value;
  }

  boolean(name: string, fallback: boolean): boolean {
    const value = this.get(name) ?? fallback;
    if (typeof value !== 'boolean') this.fail(name, value, 'true or false');
    return value as boolean;
  }

  /** The field may be absent or have one of these values. */
  only(name: string, ...supported: unknown[]): void {
    const value = this.get(name);
    if (value !== undefined && !supported.includes(value)) {
      this.fail(name, value, supported.map((one) => JSON.stringify(one)).join(' or ') || 'absent');
    }
  }

  fail(name: string, value: unknown, required: string): never {
    throw new RangeError(`${this.#path}: ${name} must be ${required}, got ${JSON.stringify(value)}`);
  }

  /** Throws for a field that nobody has read and that may change the numbers. */
  finish(): void {
    for (const [name, value] of Object.entries(this.#source)) {
      if (value === null || this.#read.has(name) || HARMLESS.has(name)) continue;
      throw new RangeError(`${this.#path}: ${name} (${JSON.stringify(value)}) is not known to this model family`);
    }
  }
}
