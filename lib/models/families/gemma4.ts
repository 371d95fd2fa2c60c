// Gemma 4, text, without per-layer embeddings and experts: like Gemma 3, with norms without + 1 and of values, other head sizes in layers
// without window, and values that may be the keys.
import { Fields } from '../fields.ts';
import { type RopeConfig, type RopeOptions, ropeConfig } from '../rope_config.ts';
import { composite } from './composite.ts';
import type { Family } from './family.ts';
import { plainDecoder, SANDWICH_NORMS, withAttention } from './plain.ts';
import { layerWindows, slidingWindow } from './windows.ts';

export const gemma4: Family = {
  type: 'gemma4_text',
  architecture: 'Gemma4ForCausalLM',
  read(fields, source) {
    refuseVariants(fields);
    fields.only('hidden_activation', 'gelu_pytorch_tanh');
    fields.get('hidden_act'); // transformers uses hidden_activation instead
    fields.only('use_bidirectional_attention', 'vision'); // of images alone
    fields.only('partial_rotary_factor', 1);
    const some = plainDecoder(fields, source, { keyValueHeads: 4, headSize: 256, tie: true, rope: NONE });
    const bias = fields.boolean('attention_bias', false);
    const hasSoftcap = fields.get('final_logit_softcapping') !== undefined;
    if (fields.isNull('sliding_window')) fields.fail('sliding_window', null, 'a positive integer');
    const length = fields.get('sliding_window') === undefined ? 512 : slidingWindow(fields);
    const windows = layerWindows(fields, some.numLayers, length, (layer) => (layer + 1) % 6 !== 0);
    windows[some.numLayers - 1] = 0; // transformers has the last layer without window, whatever layer_types says
    const sizes = sizesOf(fields, windows, some.layer.attention);
    const areKeys = fields.boolean('attention_k_eq_v', false);
    const sizeOf = (isFull: boolean) => sizes[windows.findIndex((window) => (window === 0) === isFull)]?.headSize ?? 0;
    const ropes = ropesOf(fields, { full: sizeOf(true), sliding: sizeOf(false) });
    const { layer } = some;
    const decoder = {
      ...some,
      layer: {
        ...layer,
        norms: SANDWICH_NORMS,
        mlp: { ...layer.mlp, activation: 'geluTanh' as const },
        hasScalar: true,
      },
      embedding: { scale: Math.sqrt(some.hiddenSize), isScaleRounded: true },
      head: { scale: 1, softcap: hasSoftcap ? fields.positive('final_logit_softcapping') : 0 },
    };
    return withAttention(
      decoder,
      { qkNorm: 'heads', hasValueNorm: true, bias, outputBias: bias, scale: 1 },
      (index) => {
        const isFull = windows[index] === 0;
        return {
          ...sizes[index]!,
          rotatedSize: sizes[index]!.headSize,
          window: windows[index],
          areValuesKeys: areKeys && isFull,
          rope: isFull ? ropes.full : ropes.sliding,
        };
      },
    );
  },
};

/** With images and sound: the text part. */
export const gemma4Images = composite({
  type: 'gemma4',
  architecture: 'Gemma4ForConditionalGeneration',
  texts: [gemma4],
  others: `vision_config audio_config boi_token_id eoi_token_id image_token_id video_token_id boa_token_id eoa_token_id eoa_token_index
    audio_token_id vision_soft_tokens_per_image`,
  defaults: { vocab_size: 262_144, num_attention_heads: 8 },
});

/** Stands for the rotary positions, which depend on the kind of layer. */
const NONE: RopeConfig = { type: 'default', theta: 1 };

/** What the models of 2B and 4B and those with experts have. */
function refuseVariants(fields: Fields): void {
  const perLayer = fields.isNull('hidden_size_per_layer_input') ? 0 : fields.number('hidden_size_per_layer_input', 256);
  if (perLayer !== 0) {
    fields.fail('hidden_size_per_layer_input', perLayer, '0: embeddings for each layer are not supported');
  }
  fields.get('vocab_size_per_layer_input');
  fields.only('num_kv_shared_layers', 0);
  fields.only('enable_moe_block', false);
  for (const name of ['num_experts', 'top_k_experts', 'moe_intermediate_size']) fields.get(name); // of enable_moe_block
  fields.get('use_double_wide_mlp'); // of layers that share keys and values
}

interface Sizes {
  headSize: number;
  numKeyValueHeads: number;
}

/** Sizes that layers without window have of their own: by per_layer_config, or older by global_head_dim and num_global_key_value_heads. */
function sizesOf(
  fields: Fields,
  windows: readonly number[],
  { headSize, numKeyValueHeads, numHeads }: Sizes & { numHeads: number },
): Sizes[] {
  const globalSize = fields.count('global_head_dim', 512);
  const areKeys = fields.boolean('attention_k_eq_v', false);
  const globalHeads =
    fields.get('num_global_key_value_heads') === undefined ? 0 : fields.count('num_global_key_value_heads');
  const perLayer = fields.get('per_layer_config') === undefined ? null : fields.object('per_layer_config');
  const overrides = new Map(Object.entries(perLayer ?? {}).map(([layer, fields]) => [Number(layer), fields])); // '05' is layer 5
  const sizes = windows.map((window, layer): Sizes => {
    if (!perLayer) {
      if (window > 0) return { headSize, numKeyValueHeads };
      return { headSize: globalSize, numKeyValueHeads: (areKeys && globalHeads) || numKeyValueHeads };
    }
    const own = new Fields(
      (overrides.get(layer) ?? {}) as Record<string, unknown>,
      `config.json: per_layer_config.${layer}`,
    );
    const size = {
      headSize: own.count('head_dim', headSize),
      numKeyValueHeads: own.count('num_key_value_heads', numKeyValueHeads),
    };
    own.finish();
    return size;
  });
  for (const name of Object.keys(perLayer ?? {})) {
    if (!(Number(name) < windows.length))
      fields.fail('per_layer_config', perLayer, `about the ${windows.length} layers by number`);
  }
  for (const [layer, size] of sizes.entries()) {
    if (size.headSize % 2 !== 0) fields.fail('per_layer_config', size.headSize, 'of an even head_dim');
    if (numHeads % size.numKeyValueHeads !== 0) {
      fields.fail('per_layer_config', size.numKeyValueHeads, `of num_key_value_heads that divide ${numHeads}`);
    }
    const first = sizes[windows.findIndex((window) => window > 0 === windows[layer]! > 0)]!;
    if (first.headSize !== size.headSize)
      fields.fail('per_layer_config', size.headSize, `of one head_dim for a kind of layer, ${first.headSize}`);
  }
  return sizes;
}

/** rope_parameters for each kind of layer; there is no older spelling. */
function ropesOf(
  fields: Fields,
  headSizes: { full: number; sliding: number },
): { full: RopeConfig; sliding: RopeConfig } {
  const given = fields.get('rope_parameters') !== undefined;
  const { full_attention, sliding_attention, ...others } = given ? fields.object('rope_parameters') : ROPES;
  const needed = [headSizes.full > 0 && !full_attention, headSizes.sliding > 0 && !sliding_attention];
  if (Object.keys(others).length > 0 || needed.some((isMissing) => isMissing)) {
    const whole = fields.get('rope_parameters');
    fields.fail('rope_parameters', whole, 'full_attention and sliding_attention, and nothing else');
  }
  fields.only('rope_theta');
  fields.only('rope_scaling');
  const max_position_embeddings = fields.get('max_position_embeddings') ?? 131072;
  const read = (name: string, rope_parameters: unknown, headSize: number) => {
    const types: RopeOptions['types'] = {
      proportional(rope, theta) {
        const part = rope.number('partial_rotary_factor', 1);
        if (!(part >= 0 && part <= 1)) rope.fail('partial_rotary_factor', part, 'from 0 to 1');
        return {
          type: 'proportional',
          theta,
          factor: rope.positive('factor', 1),
          rotated: Math.floor((part * headSize) / 2),
        };
      },
    };
    const isPartial = (rope_parameters as { rope_type?: unknown } | undefined)?.rope_type === 'proportional';
    const source = { rope_parameters, max_position_embeddings };
    return ropeConfig(new Fields(source, `config.json: ${name}`, fields.ignored), undefined, { types, isPartial });
  };
  return {
    full: read('full_attention', full_attention, headSizes.full),
    sliding: read('sliding_attention', sliding_attention, headSizes.sliding),
  };
}

const ROPES = {
  full_attention: { rope_type: 'proportional', partial_rotary_factor: 0.25, rope_theta: 1e6 },
  sliding_attention: { rope_type: 'default', rope_theta: 1e4 },
};
