// Qwen3, dense models only.
import type { Family } from './family.ts';
import { plainDecoder, withAttention } from './plain.ts';
import { qwenWindows } from './windows.ts';

export const qwen3: Family = {
  type: 'qwen3',
  architecture: 'Qwen3ForCausalLM',
  read(fields, source) {
    fields.only('hidden_act', 'silu', 'swish');
    const bias = fields.boolean('attention_bias', false);
    const plain = plainDecoder(fields, source, { keyValueHeads: 32, headSize: 128 });
    const windows = qwenWindows(fields, plain.numLayers);
    return withAttention(plain, { qkNorm: 'heads', bias, outputBias: bias }, (layer) => ({ window: windows[layer] }));
  },
};
