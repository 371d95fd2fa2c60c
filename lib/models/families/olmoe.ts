// OLMoE: mixtures of experts; norms of queries and keys over all heads together.
import { withExperts } from './experts.ts';
import type { Family } from './family.ts';
import { plainDecoder, withAttention } from './plain.ts';
import { onlyFullAttention } from './windows.ts';

export const olmoe: Family = {
  type: 'olmoe',
  architecture: 'OlmoeForCausalLM',
  read(fields, source) {
    fields.only('hidden_act', 'silu', 'swish');
    onlyFullAttention(fields);
    fields.only('clip_qkv');
    const bias = fields.boolean('attention_bias', false);
    const plain = plainDecoder(fields, source, { normEps: 1e-5 });
    const decoder = withAttention(plain, { qkNorm: 'all', bias, outputBias: bias });
    const name = fields.get('num_experts') === undefined ? 'num_local_experts' : 'num_experts';
    return withExperts(fields, decoder, {
      count: fields.count(name, 64),
      perToken: fields.count('num_experts_per_tok', 8),
      isNormalized: fields.boolean('norm_topk_prob', false),
      names: { block: 'mlp', gate: 'gate_proj', up: 'up_proj', down: 'down_proj' },
    });
  },
};
