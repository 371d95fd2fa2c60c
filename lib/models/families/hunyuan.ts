// HunYuan V1, dense models only: norms of queries and keys after their rotation, and a base that grows by alpha.
import { ropeConfig } from '../rope_config.ts';
import type { Family } from './family.ts';
import { plainDecoder, withAttention } from './plain.ts';
import { onlyFullAttention } from './windows.ts';

export const hunyuan: Family = {
  type: 'hunyuan_v1_dense',
  architecture: 'HunYuanDenseV1ForCausalLM',
  read(fields, source) {
    fields.only('hidden_act', 'silu', 'swish');
    onlyFullAttention(fields);
    fields.get('eod_token_id'); // transformers does not use it
    const plain = plainDecoder(fields, source, {
      normEps: 1e-5,
      rope: ropeConfig(fields, 10000, {
        types: {
          dynamic(rope, theta) {
            // transformers reads them for other types only
            for (const name of ['beta_fast', 'beta_slow', 'mscale', 'mscale_all_dim']) rope.get(name);
            const alpha = rope.get('alpha') === undefined || rope.get('alpha') === 0 ? 1 : rope.positive('alpha');
            const maxPositions = fields.count('max_position_embeddings', 2048);
            return { type: 'dynamic', theta, factor: rope.positive('factor'), maxPositions, alpha };
          },
        },
      }),
    });
    const bias = fields.boolean('attention_bias', false);
    return withAttention(plain, {
      qkNorm: 'heads',
      qkNormNames: { q: 'query_layernorm', k: 'key_layernorm' },
      isNormedAfterRotation: true,
      bias,
      outputBias: bias,
    });
  },
};
