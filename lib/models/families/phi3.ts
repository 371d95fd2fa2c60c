// Phi-3, Phi-3.5 and Phi-4: one weight for queries, keys and values, one for gate and up; part of each head rotated; longrope.
import type { Fields } from '../fields.ts';
import { type RopeConfig, ropeConfig, rotatedSize } from '../rope_config.ts';
import type { Family } from './family.ts';
import { plainDecoder, requireNoDropout, withAttention } from './plain.ts';

export const phi3: Family = {
  type: 'phi3',
  architecture: 'Phi3ForCausalLM',
  read(fields, source) {
    fields.only('hidden_act', 'silu', 'swish');
    fields.only('attention_bias', false);
    fields.only('lm_head_bias', false);
    requireNoDropout(fields, 'resid_pdrop', "dropout of attention's and MLP's outputs");
    // transformers does not read them
    for (const name of ['embd_pdrop', 'full_attn_mod', 'interpolate_factor']) fields.get(name);
    const maxPositions = fields.count('max_position_embeddings', 4096);
    const originalMaxPositions = fields.count('original_max_position_embeddings', 4096); // rope_parameters' own is not read
    const longrope = (rope: Fields, theta: number): RopeConfig => {
      const factor = rope.get('factor') === undefined ? maxPositions / originalMaxPositions : rope.positive('factor');
      const growth = factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(originalMaxPositions));
      return {
        type: 'longrope',
        theta,
        shortFactors: factors(rope, 'short_factor'),
        longFactors: factors(rope, 'long_factor'),
        originalMaxPositions,
        attentionFactor: rope.positive('attention_factor', growth),
      };
    };
    const types = { longrope, su: longrope, yarn: longrope }; // older names of it
    const rope = ropeConfig(fields, 10000, { isPartial: true, types });
    if (rope.type !== 'default' && rope.type !== 'longrope') {
      fields.fail('rope_parameters', rope.type, 'of rope_type default or longrope');
    }
    const plain = plainDecoder(fields, source, { normEps: 1e-5, rope });
    const { layer } = plain;
    const rotated = rotatedSize(fields, layer.attention.headSize);
    if (rope.type === 'longrope') {
      for (const [name, { length }] of [
        ['short_factor', rope.shortFactors],
        ['long_factor', rope.longFactors],
      ] as const) {
        if (length !== rotated / 2) fields.fail(`rope_parameters.${name}`, length, `a list of ${rotated / 2}`);
      }
    }
    const window = fields.get('sliding_window') === undefined ? 0 : fields.count('sliding_window');
    const decoder = { ...plain, layer: { ...layer, mlp: { ...layer.mlp, isFused: true } } };
    return withAttention(decoder, { isFused: true, rotatedSize: rotated, window });
  },
};

function factors(rope: Fields, name: string): number[] {
  const list = rope.get(name);
  if (!Array.isArray(list) || !list.every((value) => typeof value === 'number' && value > 0)) {
    return rope.fail(name, list, 'a list of positive numbers');
  }
  return list as number[];
}
