// HunYuan V1, dense models only: norms of queries and keys after their rotation, and a base that grows by alpha.
import { ropeConfig } from '../rope_config.ts';
import type { Family } from './family.ts';
import { plainDecoder, withAttention } from './plain.ts';
import { onlyFullAttention } from './windows.ts';

/** What published configs have and transformers does not use. */
const UNUSED =
  `attention_head_dim class_num cla_share_factor dense_list eod_token_id im_end_id im_newline_id im_start_id mask_init_id
  org_vocab_size pad_id pool_type text_end_id text_start_id`.split(/\s+/);

export const hunyuan: Family = {
  type: 'hunyuan_v1_dense',
  architecture: 'HunYuanDenseV1ForCausalLM',
  read(fields, source) {
    fields.only('hidden_act', 'silu', 'swish');
    onlyFullAttention(fields);
    fields.only('use_qk_norm', true);
    fields.only('use_rotary_pos_emb', true);
    fields.only('use_cla', false);
    fields.only('num_experts', 1);
    fields.only('norm_type', 'rms');
    for (const name of UNUSED) fields.get(name);
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
