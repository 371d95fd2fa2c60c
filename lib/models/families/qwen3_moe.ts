// Qwen3's mixtures of experts.
import { layersWithExperts, withExperts } from './experts.ts';
import type { Family } from './family.ts';
import { plainDecoder, withAttention } from './plain.ts';

export const qwen3Moe: Family = {
  type: 'qwen3_moe',
  architecture: 'Qwen3MoeForCausalLM',
  read(fields, source) {
    fields.only('hidden_act', 'silu', 'swish');
    const bias = fields.boolean('attention_bias', false);
    const plain = plainDecoder(fields, source, { keyValueHeads: 4 });
    // All layers have it, whatever max_window_layers says.
    const isSliding = fields.boolean('use_sliding_window', false) && !fields.isNull('sliding_window');
    const length = fields.get('sliding_window') === undefined ? 4096 : fields.count('sliding_window');
    const window = isSliding ? length : 0;
    const decoder = withAttention(plain, { qkNorm: 'heads', bias, outputBias: bias, window });
    const name = fields.get('num_experts') === undefined ? 'num_local_experts' : 'num_experts';
    const experts = {
      count: fields.count(name, 128),
      perToken: fields.count('num_experts_per_tok', 8),
      isNormalized: fields.boolean('norm_topk_prob', false),
      names: { block: 'mlp', gate: 'gate_proj', up: 'up_proj', down: 'down_proj' },
    };
    const intermediateSize = fields.count('moe_intermediate_size', 768);
    return withExperts(fields, decoder, experts, { intermediateSize, hasExperts: layersWithExperts(fields) });
  },
};
