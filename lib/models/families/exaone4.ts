// EXAONE 4: norms after attention and MLP. If some layers have a window, the others have no rotary positions.
import type { Family } from './family.ts';
import { POST_NORMS, plainDecoder, withAttention } from './plain.ts';
import { layerWindows, slidingPattern, slidingWindow } from './windows.ts';

export const exaone4: Family = {
  type: 'exaone4',
  architecture: 'Exaone4ForCausalLM',
  read(fields, source) {
    fields.only('hidden_act', 'silu', 'swish');
    fields.only('attention_bias', false);
    const plain = plainDecoder(fields, source, { keyValueHeads: 32, normEps: 1e-5 });
    fields.get('sliding_window_pattern'); // has no effect without windows
    const length = slidingWindow(fields);
    const windows = layerWindows(fields, plain.numLayers, length, length > 0 ? slidingPattern(fields, 4) : () => false);
    const decoder = { ...plain, layer: { ...plain.layer, norms: POST_NORMS } };
    return withAttention(decoder, { qkNorm: 'heads' }, (layer) => ({
      window: windows[layer],
      rope: length === 0 || windows[layer]! > 0 ? plain.layer.attention.rope : null,
    }));
  },
};
