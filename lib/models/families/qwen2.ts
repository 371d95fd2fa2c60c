// Qwen2 and Qwen2.5.
import type { Family } from './family.ts';
import { plainDecoder, withAttention } from './plain.ts';
import { qwenWindows } from './windows.ts';

export const qwen2: Family = {
  type: 'qwen2',
  architecture: 'Qwen2ForCausalLM',
  read(fields, source) {
    fields.only('hidden_act', 'silu', 'swish');
    fields.only('use_mrope', false);
    fields.get('attention_bias'); // transformers ignores it: queries, keys and values always have a bias, the output never
    fields.get('dual_chunk_attention_config'); // only vLLM reads it, for sequences longer than those in training
    const plain = plainDecoder(fields, source, { keyValueHeads: 32 });
    const windows = qwenWindows(fields, plain.numLayers);
    return withAttention(plain, { bias: true }, (layer) => ({ window: windows[layer] }));
  },
};
