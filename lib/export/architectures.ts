// Families as llama.cpp knows them: the name of the architecture, its keys, and what it computes in its own way. What an architecture
// would compute otherwise than the model is refused.
import { brief } from '../brief.ts';
import type { AttentionSpec, DecoderConfig, LayerSpec } from '../models/decoder_config.ts';
import type { RopeConfig } from '../models/rope_config.ts';
import { inverseFrequencies } from '../models/rope_frequencies.ts';
import type { GgufValue } from './gguf_file.ts';

export interface Architecture {
  /** general.architecture. */
  name: string;
  /** Positions where config.json does not say max_position_embeddings: transformers' default. */
  positions: number;
  /** Whether columns 2d and 2d + 1 of a head turn together there: rows of queries and keys are then written in another order. */
  isInterleaved: boolean;
  /** Biases that it reads. */
  biases: readonly ('qkv' | 'output' | 'mlp')[];
  /** Kinds of rotary positions that it computes as they are computed here. */
  ropes: readonly RopeConfig['type'][];
  /** Whether it takes the heads together to be as wide as the hidden states. */
  isSquare?: boolean;
  /** 'required': a head that is tied is written too. 'tied': it has none of its own. @default it may have one */
  head?: 'required' | 'tied';
  /** Every n-th layer has no window, all others have. @default it knows no windows: texts may be as long as one */
  windowEvery?: number;
  /** Every n-th layer has no rotary positions. @default all have */
  unrotatedEvery?: number;
  /** Number of layers with which the scores' scale is 1/sqrt(C/H) instead of 1/sqrt(D). */
  layersOfWideScale?: number;
  /** Whether factors on embedding, scores, residual branches and logits are keys. */
  hasScales?: boolean;
  /** Which soft caps are keys, and whether they must be there. */
  softcaps?: 'both' | 'logits';
}

const plainRopes = ['default', 'linear', 'yarn'] as const;
const ofLlama = { name: 'llama', isInterleaved: true, biases: ['qkv', 'output', 'mlp'] } as const;

/** By model_type of the text part. */
export const architectures: Readonly<Record<string, Architecture>> = {
  llama: { ...ofLlama, positions: 2048, ropes: [...plainRopes, 'llama3'] },
  mistral: { ...ofLlama, positions: 131_072, ropes: [...plainRopes, 'llama3'] },
  qwen2: {
    name: 'qwen2',
    positions: 32_768,
    isInterleaved: false,
    biases: ['qkv'],
    ropes: plainRopes,
    isSquare: true,
  },
  qwen3: { name: 'qwen3', positions: 32_768, isInterleaved: false, biases: [], ropes: plainRopes },
  gemma2: {
    name: 'gemma2',
    positions: 8192,
    isInterleaved: false,
    biases: [],
    ropes: ['default'],
    head: 'tied',
    windowEvery: 2,
    layersOfWideScale: 46,
    softcaps: 'both',
  },
  gemma3_text: {
    name: 'gemma3',
    positions: 131_072,
    isInterleaved: false,
    biases: [],
    ropes: ['default', 'linear'],
    windowEvery: 6,
    layersOfWideScale: 62,
    softcaps: 'logits',
  },
  phi3: {
    name: 'phi3',
    positions: 4096,
    isInterleaved: false,
    biases: [],
    ropes: ['default', 'longrope'],
    isSquare: true,
  },
  smollm3: {
    name: 'smollm3',
    positions: 32_768,
    isInterleaved: true,
    biases: ['qkv'],
    ropes: plainRopes,
    unrotatedEvery: 4,
  },
  granite: { ...ofLlama, name: 'granite', positions: 2048, ropes: [...plainRopes, 'llama3'], hasScales: true },
  olmo2: {
    name: 'olmo2',
    positions: 2048,
    isInterleaved: false,
    biases: [],
    ropes: plainRopes,
    isSquare: true,
    head: 'required',
  },
};

/** Numbers of the model as llama.cpp's keys, all below the architecture's name. Throws a RangeError for what it would compute otherwise. */
export function keysOf(
  architecture: Architecture,
  config: DecoderConfig,
  maxPositions: unknown,
): Map<string, GgufValue> {
  requireSame(architecture, config);
  const { layers, hiddenSize, vocabSize, norm, embedding, head } = config;
  const { attention, mlp, residualScale } = layers[0]!;
  const { numHeads, numKeyValueHeads, headSize, rotatedSize, scale, softcap } = attention;
  const keys = new Map<string, GgufValue>();
  const count = (key: string, value: number) => keys.set(key, { type: 'uint32', value });
  const number = (key: string, value: number) => keys.set(key, { type: 'float32', value });
  count('block_count', layers.length);
  count('context_length', positionsOf(architecture, config, maxPositions));
  count('embedding_length', hiddenSize);
  count('feed_forward_length', mlp.intermediateSize);
  count('vocab_size', vocabSize);
  count('attention.head_count', numHeads);
  count('attention.head_count_kv', numKeyValueHeads);
  count('attention.key_length', headSize);
  count('attention.value_length', headSize);
  number('attention.layer_norm_rms_epsilon', norm.eps);
  count('rope.dimension_count', rotatedSize);
  const full = layers.find((layer) => layer.attention.rope && isFull(layer))?.attention.rope ?? attention.rope;
  if (full) for (const [key, value] of ropeKeys(full)) keys.set(key, value);
  if (architecture.windowEvery) {
    const windowed = layers.find((layer) => !isFull(layer))!.attention;
    count('attention.sliding_window', windowed.window);
    number('rope.freq_base_swa', windowed.rope!.theta);
  }
  if (architecture.hasScales) {
    number('attention.scale', scale);
    number('embedding_scale', embedding.scale);
    number('residual_scale', residualScale);
    number('logit_scale', 1 / head.scale);
  }
  if (architecture.softcaps === 'both') number('attn_logit_softcapping', softcap);
  if (architecture.softcaps && head.softcap > 0) number('final_logit_softcapping', head.softcap);
  return keys;
}

const isFull = ({ attention }: LayerSpec) => attention.window === 0;

/** Positions of a text for which its results are the model's: without windows there, no more than the shortest window. */
function positionsOf({ positions, windowEvery }: Architecture, { layers }: DecoderConfig, max: unknown): number {
  const said = typeof max === 'number' ? max : positions;
  const windows = windowEvery ? [] : layers.map(({ attention }) => attention.window).filter((window) => window > 0);
  return Math.min(said, ...windows);
}

function ropeKeys(rope: RopeConfig): Map<string, GgufValue> {
  const keys = new Map<string, GgufValue>([['rope.freq_base', { type: 'float32', value: rope.theta }]]);
  const number = (key: string, value: number) => keys.set(`rope.scaling.${key}`, { type: 'float32', value });
  if (rope.type === 'linear' || rope.type === 'yarn') {
    keys.set('rope.scaling.type', { type: 'string', value: rope.type });
    number('factor', rope.factor);
  }
  if (rope.type === 'yarn' || rope.type === 'longrope') {
    keys.set('rope.scaling.original_context_length', { type: 'uint32', value: rope.originalMaxPositions });
  }
  if (rope.type === 'longrope') number('attn_factor', rope.attentionFactor);
  return keys;
}

/** Factors by which frequencies are divided, in tensors of their own. */
export function ropeTensors(config: DecoderConfig): Map<string, Float32Array> {
  const { rope, rotatedSize: size } = config.layers.find(({ attention }) => attention.rope)?.attention ?? {};
  if (!rope || size === undefined) return new Map();
  if (rope.type === 'longrope') {
    return new Map([
      ['rope_factors_long.weight', Float32Array.from(rope.longFactors)],
      ['rope_factors_short.weight', Float32Array.from(rope.shortFactors)],
    ]);
  }
  if (rope.type !== 'llama3') return new Map();
  const scaled = inverseFrequencies(rope, size, 0);
  const plain = inverseFrequencies({ type: 'default', theta: rope.theta }, size, 0);
  return new Map([['rope_freqs.weight', Float32Array.from(plain, (frequency, d) => frequency / scaled[d]!)]]);
}

/** Throws for what the architecture has no key for, by the name of what differs. */
function requireSame(architecture: Architecture, config: DecoderConfig): void {
  const refuse = (what: string, value: unknown, required: string): never => {
    throw new RangeError(
      `export: llama.cpp's ${architecture.name} has no key for ${what} ${brief(value)}: it takes ${required}`,
    );
  };
  const { layers, hiddenSize, tieWordEmbeddings, head } = config;
  if (architecture.head === 'tied' && !tieWordEmbeddings) refuse('tie_word_embeddings', false, 'true');
  for (const [i, layer] of layers.entries()) {
    const { attention, mlp } = layer;
    const of = (name: string) => `layer ${i}'s ${name}`;
    const { numHeads: H, headSize: D } = attention;
    if (architecture.isSquare && H * D !== hiddenSize) refuse(of('heads together'), H * D, `hidden_size ${hiddenSize}`);
    const has = { qkv: attention.bias, output: attention.outputBias, mlp: mlp.bias };
    for (const [name, isThere] of Object.entries(has)) {
      if (isThere && !architecture.biases.includes(name as 'qkv')) refuse(of(`biases (${name})`), true, 'none');
    }
    const wide = layers.length === architecture.layersOfWideScale ? hiddenSize / H : D;
    if (!architecture.hasScales && Math.abs(attention.scale * Math.sqrt(wide) - 1) > 1e-6) {
      refuse(of("scores' scale"), attention.scale, `1/sqrt(${wide})`);
    }
    if (architecture.softcaps === 'both' && attention.softcap === 0) refuse('attn_logit_softcapping', null, 'a number');
    requireSameRope(architecture, attention, i, refuse);
    if (architecture.windowEvery) {
      const isWindowed = (i + 1) % architecture.windowEvery !== 0;
      if (attention.window > 0 !== isWindowed) {
        refuse(of('window'), attention.window, isWindowed ? 'one' : `none in every layer ${architecture.windowEvery}`);
      }
    }
  }
  if (architecture.softcaps === 'both' && head.softcap === 0) refuse('final_logit_softcapping', null, 'a number');
}

type Refuse = (what: string, value: unknown, required: string) => never;

function requireSameRope(
  { ropes, unrotatedEvery, windowEvery }: Architecture,
  { rope, window }: AttentionSpec,
  layer: number,
  refuse: Refuse,
): void {
  const name = `layer ${layer}'s rotary positions`;
  const isRotated = !unrotatedEvery || (layer + 1) % unrotatedEvery !== 0;
  if ((rope !== null) !== isRotated) refuse(name, rope?.type ?? 'none', isRotated ? 'some' : 'none');
  if (!rope) return;
  const allowed = windowEvery && window > 0 ? ['default'] : ropes;
  if (!allowed.includes(rope.type)) refuse(name, rope.type, allowed.join(', '));
  if (rope.type !== 'yarn') return;
  const { factor, betaFast, betaSlow, truncate, attentionFactor } = rope;
  const growth = 0.1 * Math.log(factor) + 1;
  if (betaFast !== 32) refuse('beta_fast', betaFast, '32');
  if (betaSlow !== 1) refuse('beta_slow', betaSlow, '1');
  if (!truncate) refuse('truncate', false, 'true');
  if (Math.abs(attentionFactor - growth) > 1e-6) refuse('attention_factor', attentionFactor, `${growth}`);
}
