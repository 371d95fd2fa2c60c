// Mixtral: each MLP is a mixture of experts.
import { withExperts } from './experts.ts';
import type { Family } from './family.ts';
import { plainDecoder, withAttention } from './plain.ts';

export const mixtral: Family = {
  type: 'mixtral',
  architecture: 'MixtralForCausalLM',
  read(fields, source) {
    fields.only('hidden_act', 'silu', 'swish');
    const plain = plainDecoder(fields, source, { keyValueHeads: 8, normEps: 1e-5, ropeTheta: 1e6 });
    fields.only('attention_bias', false);
    const jitter = fields.number('router_jitter_noise', 0);
    if (jitter !== 0) fields.fail('router_jitter_noise', jitter, '0: noise on the input of experts is not supported');
    const window = fields.get('sliding_window') === undefined ? 0 : fields.count('sliding_window');
    return withExperts(fields, withAttention(plain, { window }), {
      count: fields.count('num_local_experts', 8),
      perToken: fields.count('num_experts_per_tok', 2),
      isNormalized: true,
      names: { block: 'block_sparse_moe', gate: 'w1', up: 'w3', down: 'w2' },
    });
  },
};
