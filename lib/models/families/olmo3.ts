// OLMo 3: like OLMo 2, with windows in most layers; those without may have other rotary positions.
import { Fields } from '../fields.ts';
import { type RopeConfig, ropeConfig } from '../rope_config.ts';
import type { Family } from './family.ts';
import { POST_NORMS, plainDecoder, withAttention } from './plain.ts';
import { layerWindows, slidingWindow } from './windows.ts';

const THETA = 500_000;

export const olmo3: Family = {
  type: 'olmo3',
  architecture: 'Olmo3ForCausalLM',
  read(fields, source) {
    fields.only('hidden_act', 'silu', 'swish');
    fields.only('partial_rotary_factor', 1);
    const bias = fields.boolean('attention_bias', false);
    const ropes = ropesOf(fields);
    const plain = plainDecoder(fields, source, { normEps: 1e-5, rope: ropes.full });
    const windows = layerWindows(fields, plain.numLayers, slidingWindow(fields), (layer) => (layer + 1) % 4 !== 0);
    const decoder = { ...plain, layer: { ...plain.layer, norms: POST_NORMS } };
    return withAttention(decoder, { qkNorm: 'all', bias, outputBias: bias }, (layer) => ({
      window: windows[layer],
      rope: windows[layer]! > 0 ? ropes.sliding : ropes.full,
    }));
  },
};

/** Reads rope_parameters for each kind of layer, or rope_scaling, which is of layers without window alone. */
function ropesOf(fields: Fields): { full: RopeConfig; sliding: RopeConfig } {
  const { full_attention, sliding_attention, ...others } = fields.object('rope_parameters');
  if (Object.keys(others).length > 0) {
    const whole = fields.get('rope_parameters');
    fields.fail('rope_parameters', whole, 'full_attention and sliding_attention, and nothing else');
  }
  // Versions of transformers disagree on whether rope_theta beside them is that of layers with a window too.
  if (!full_attention || !sliding_attention) fields.only('rope_theta', THETA);
  const max_position_embeddings = fields.get('max_position_embeddings') ?? 2048;
  const read = (name: string, source: Record<string, unknown>) =>
    ropeConfig(new Fields({ ...source, max_position_embeddings }, `config.json: ${name}`, fields.ignored), THETA);
  const rope_scaling = fields.get('rope_scaling');
  fields.get('rope_theta');
  return {
    full: read('full_attention', { rope_parameters: full_attention, rope_scaling }),
    sliding: read('sliding_attention', { rope_parameters: sliding_attention }),
  };
}
