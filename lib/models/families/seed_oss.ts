// Seed-OSS: biases of queries, keys and values, of the output by a field of its own.
import type { Family } from './family.ts';
import { plainDecoder, requireNoDropout, withAttention } from './plain.ts';
import { onlyFullAttention } from './windows.ts';

export const seedOss: Family = {
  type: 'seed_oss',
  architecture: 'SeedOssForCausalLM',
  read(fields, source) {
    fields.only('hidden_act', 'silu', 'swish');
    onlyFullAttention(fields);
    // transformers takes 0.1 where it is absent, in training alone; here there is none
    requireNoDropout(fields, 'residual_dropout', "dropout of attention's and MLP's outputs");
    const plain = plainDecoder(fields, source, { keyValueHeads: 8, headSize: 128, hasMlpBias: true });
    const bias = fields.boolean('attention_bias', true);
    return withAttention(plain, { bias, outputBias: fields.boolean('attention_out_bias', false) });
  },
};
