// Llama 2, 3 and 3.x.
import type { Family } from './family.ts';
import { plainDecoder, withAttention } from './plain.ts';
import { onlyFullAttention } from './windows.ts';

export const llama: Family = {
  type: 'llama',
  architecture: 'LlamaForCausalLM',
  read(fields, source) {
    fields.only('hidden_act', 'silu', 'swish');
    onlyFullAttention(fields);
    const bias = fields.boolean('attention_bias', false);
    return withAttention(plainDecoder(fields, source), { bias, outputBias: bias });
  },
};
