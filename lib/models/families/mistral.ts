// Mistral and Ministral.
import type { Family } from './family.ts';
import { plainDecoder, withAttention } from './plain.ts';
import { layerWindows, slidingWindow } from './windows.ts';

export const mistral: Family = {
  type: 'mistral',
  architecture: 'MistralForCausalLM',
  read(fields, source) {
    fields.only('hidden_act', 'silu', 'swish');
    const plain = plainDecoder(fields, source, { keyValueHeads: 8 });
    fields.only('attention_bias', false);
    const windows = layerWindows(fields, plain.numLayers, slidingWindow(fields), () => true);
    return withAttention(plain, {}, (layer) => ({ window: windows[layer] }));
  },
};
