// Gemma 3, text models only: like Gemma 2, with norms of queries and keys and two kinds of rotary positions.
import { Fields } from '../fields.ts';
import { type RopeConfig, ropeConfig } from '../rope_config.ts';
import { composite } from './composite.ts';
import type { Family } from './family.ts';
import { plainDecoder, SANDWICH_NORMS, withAttention } from './plain.ts';
import { layerWindows, slidingPattern, slidingWindow } from './windows.ts';

export const gemma3: Family = {
  type: 'gemma3_text',
  architecture: 'Gemma3ForCausalLM',
  read(fields, source) {
    fields.only('hidden_activation', 'gelu_pytorch_tanh');
    fields.get('hidden_act'); // transformers uses hidden_activation instead
    fields.only('use_bidirectional_attention', false);
    fields.only('attn_logit_softcapping'); // transformers does not apply it
    fields.only('partial_rotary_factor', 1);
    const ropes = ropesOf(fields);
    const plain = plainDecoder(fields, source, { keyValueHeads: 4, headSize: 256, tie: true, rope: ropes.full });
    const bias = fields.boolean('attention_bias', false);
    const scale = 1 / Math.sqrt(fields.positive('query_pre_attn_scalar', 256));
    const hasSoftcap = fields.get('final_logit_softcapping') !== undefined;
    if (fields.isNull('sliding_window')) fields.fail('sliding_window', null, 'a positive integer');
    const windows = layerWindows(fields, plain.numLayers, slidingWindow(fields), slidingPattern(fields, 6));
    const { layer, norm } = plain;
    const decoder = {
      ...plain,
      layer: { ...layer, norms: SANDWICH_NORMS, mlp: { ...layer.mlp, activation: 'geluTanh' as const } },
      norm: { ...norm, offset: 1 },
      embedding: { scale: Math.sqrt(plain.hiddenSize), isScaleRounded: true },
      head: { scale: 1, softcap: hasSoftcap ? fields.positive('final_logit_softcapping') : 0 },
    };
    return withAttention(decoder, { qkNorm: 'heads', bias, outputBias: bias, scale }, (layer) => ({
      window: windows[layer],
      rope: windows[layer]! > 0 ? ropes.sliding : ropes.full,
    }));
  },
};

/** With images: the text part. */
export const gemma3Images = composite({
  type: 'gemma3',
  architecture: 'Gemma3ForConditionalGeneration',
  texts: [gemma3],
  others: `vision_config mm_tokens_per_image boi_token_index eoi_token_index image_token_index boi_token_id eoi_token_id image_token_id`,
  defaults: { vocab_size: 262_208, num_attention_heads: 8 },
});

/** Reads both spellings: rope_parameters for each kind of layer, or rope_theta, rope_scaling and rope_local_base_freq. */
function ropesOf(fields: Fields): { full: RopeConfig; sliding: RopeConfig } {
  const { full_attention, sliding_attention, ...others } = fields.object('rope_parameters');
  if (Object.keys(others).length > 0) {
    fields.fail(
      'rope_parameters',
      fields.get('rope_parameters'),
      'full_attention and sliding_attention, and nothing else',
    );
  }
  const max_position_embeddings = fields.get('max_position_embeddings');
  const read = (name: string, source: Record<string, unknown>, theta: number) =>
    ropeConfig(new Fields({ ...source, max_position_embeddings }, `config.json: ${name}`, fields.ignored), theta);
  const rope_theta = fields.get('rope_theta');
  const rope_scaling = fields.get('rope_scaling');
  return {
    full: read('full_attention', { rope_parameters: full_attention, rope_theta, rope_scaling }, 1e6),
    sliding: read(
      'sliding_attention',
      { rope_parameters: sliding_attention, rope_theta: fields.get('rope_local_base_freq') },
      1e4,
    ),
  };
}
