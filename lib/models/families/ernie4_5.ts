// ERNIE 4.5, dense models only: neighbouring columns of a head turn together; one field for all biases.
import type { Family } from './family.ts';
import { plainDecoder, withAttention } from './plain.ts';
import { onlyFullAttention } from './windows.ts';

export const ernie45: Family = {
  type: 'ernie4_5',
  architecture: 'Ernie4_5ForCausalLM',
  read(fields, source) {
    fields.only('hidden_act', 'silu', 'swish');
    fields.only('use_rmsnorm', true);
    onlyFullAttention(fields);
    const plain = plainDecoder(fields, source, { keyValueHeads: 2, headSize: 128, tie: true, normEps: 1e-5 });
    const bias = fields.boolean('use_bias', false);
    const { layer } = plain;
    const decoder = { ...plain, layer: { ...layer, mlp: { ...layer.mlp, bias } } };
    return withAttention(decoder, { isInterleaved: true, bias, outputBias: bias });
  },
};
