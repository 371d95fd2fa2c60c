// Configs of well-known models by name, for plans that need no files: as their config.json has them, less fields that change no number.
import { brief } from '../brief.ts';
import type { HuggingFaceConfig } from './fields.ts';

/** Of Llama 3 and 3.x. */
const llama3 = { model_type: 'llama', num_key_value_heads: 8, vocab_size: 128256, rms_norm_eps: 1e-5, rope_theta: 5e5 };

/** Llama 3.1's rotary positions, and 3.2's with another factor. */
const ropeOf = (factor: number) => ({
  rope_type: 'llama3',
  factor,
  low_freq_factor: 1,
  high_freq_factor: 4,
  original_max_position_embeddings: 8192,
});

const llama3At8B = {
  ...llama3,
  hidden_size: 4096,
  intermediate_size: 14336,
  num_hidden_layers: 32,
  num_attention_heads: 32,
};

/** Qwen2-7B and Qwen2.5-7B. */
const qwen2At7B = {
  model_type: 'qwen2',
  hidden_size: 3584,
  intermediate_size: 18944,
  num_hidden_layers: 28,
  num_attention_heads: 28,
  num_key_value_heads: 4,
  vocab_size: 152064,
  rms_norm_eps: 1e-6,
  rope_theta: 1e6,
  use_sliding_window: false,
  tie_word_embeddings: false,
};

function qwen3(C: number, F: number, L: number, H: number, tie: boolean): HuggingFaceConfig {
  return {
    model_type: 'qwen3',
    hidden_size: C,
    intermediate_size: F,
    num_hidden_layers: L,
    num_attention_heads: H,
    num_key_value_heads: 8,
    head_dim: 128,
    vocab_size: 151936,
    rms_norm_eps: 1e-6,
    rope_theta: 1e6,
    use_sliding_window: false,
    tie_word_embeddings: tie,
  };
}

/** Every other layer has a window. */
const gemma2 = {
  model_type: 'gemma2',
  head_dim: 256,
  vocab_size: 256000,
  rms_norm_eps: 1e-6,
  rope_theta: 1e4,
  sliding_window: 4096,
  query_pre_attn_scalar: 256,
  attn_logit_softcapping: 50,
  final_logit_softcapping: 30,
  hidden_activation: 'gelu_pytorch_tanh',
};

function smolLm2(C: number, F: number, L: number, [H, G]: readonly [H: number, G: number], theta: number) {
  return {
    model_type: 'llama',
    hidden_size: C,
    intermediate_size: F,
    num_hidden_layers: L,
    num_attention_heads: H,
    num_key_value_heads: G,
    vocab_size: 49152,
    rms_norm_eps: 1e-5,
    rope_theta: theta,
    tie_word_embeddings: true,
  };
}

/** By name. Base models; their chat models have the same sizes. */
export const presets: Readonly<Record<string, HuggingFaceConfig>> = {
  'Llama-3-8B': llama3At8B,
  'Llama-2-7B': {
    model_type: 'llama',
    hidden_size: 4096,
    intermediate_size: 11008,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    num_key_value_heads: 32,
    vocab_size: 32000,
    rms_norm_eps: 1e-5,
  },
  // Version 0.1, which has a window in every layer.
  'Mistral-7B': {
    model_type: 'mistral',
    hidden_size: 4096,
    intermediate_size: 14336,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    num_key_value_heads: 8,
    vocab_size: 32000,
    rms_norm_eps: 1e-5,
    rope_theta: 1e4,
    sliding_window: 4096,
  },
  'Qwen2-7B': qwen2At7B,
  'Gemma-2-9B': {
    ...gemma2,
    hidden_size: 3584,
    intermediate_size: 14336,
    num_hidden_layers: 42,
    num_attention_heads: 16,
    num_key_value_heads: 8,
  },
  'Llama-3.1-8B': { ...llama3At8B, rope_scaling: ropeOf(8) },
  'Llama-3.2-1B': {
    ...llama3,
    hidden_size: 2048,
    intermediate_size: 8192,
    num_hidden_layers: 16,
    num_attention_heads: 32,
    head_dim: 64,
    rope_scaling: ropeOf(32),
    tie_word_embeddings: true,
  },
  'Llama-3.2-3B': {
    ...llama3,
    hidden_size: 3072,
    intermediate_size: 8192,
    num_hidden_layers: 28,
    num_attention_heads: 24,
    head_dim: 128,
    rope_scaling: ropeOf(32),
    tie_word_embeddings: true,
  },
  'Qwen2.5-7B': qwen2At7B,
  'Qwen3-0.6B': qwen3(1024, 3072, 28, 16, true),
  'Qwen3-1.7B': qwen3(2048, 6144, 28, 16, true),
  'Qwen3-4B': qwen3(2560, 9728, 36, 32, true),
  'Qwen3-8B': qwen3(4096, 12288, 36, 32, false),
  'Qwen3-14B': qwen3(5120, 17408, 40, 40, false),
  'Qwen3-32B': qwen3(5120, 25600, 64, 64, false),
  'Gemma-2-2B': {
    ...gemma2,
    hidden_size: 2304,
    intermediate_size: 9216,
    num_hidden_layers: 26,
    num_attention_heads: 8,
    num_key_value_heads: 4,
  },
  'SmolLM2-135M': smolLm2(576, 1536, 30, [9, 3], 1e5),
  'SmolLM2-360M': smolLm2(960, 2560, 32, [15, 5], 1e5),
  'SmolLM2-1.7B': smolLm2(2048, 8192, 24, [32, 32], 1.3e5),
  'Mistral-Nemo': {
    model_type: 'mistral',
    hidden_size: 5120,
    intermediate_size: 14336,
    num_hidden_layers: 40,
    num_attention_heads: 32,
    num_key_value_heads: 8,
    head_dim: 128,
    vocab_size: 131072,
    rms_norm_eps: 1e-5,
    rope_theta: 1e6,
    sliding_window: null,
  },
};

/**
 * The config.json of a preset, by its name in any case.
 * @throws RangeError that lists the names
 */
export function presetConfig(name: string): HuggingFaceConfig {
  const found = Object.keys(presets).find((preset) => preset.toLowerCase() === name.toLowerCase());
  if (found === undefined) {
    throw new RangeError(`preset: ${brief(name)} is none of ${Object.keys(presets).join(', ')}`);
  }
  return presets[found]!;
}
