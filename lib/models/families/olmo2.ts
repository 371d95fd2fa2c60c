// OLMo 2: norms after attention and MLP; norms of queries and keys over all heads together.
import type { Family } from './family.ts';
import { POST_NORMS, plainDecoder, withAttention } from './plain.ts';
import { onlyFullAttention } from './windows.ts';

export const olmo2: Family = {
  type: 'olmo2',
  architecture: 'Olmo2ForCausalLM',
  read(fields, source) {
    fields.only('hidden_act', 'silu', 'swish');
    onlyFullAttention(fields);
    const bias = fields.boolean('attention_bias', false);
    const plain = plainDecoder(fields, source, { normEps: 1e-5 });
    const decoder = { ...plain, layer: { ...plain.layer, norms: POST_NORMS } };
    return withAttention(decoder, { qkNorm: 'all', bias, outputBias: bias });
  },
};
