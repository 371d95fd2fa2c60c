// EXAONE 4: norms after attention and MLP, windows, and no rotary positions in the layers between those that have one.
import type { Fields } from '../fields.ts';
import type { Family } from './family.ts';
import { POST_NORMS, plainDecoder, withAttention } from './plain.ts';
import { layerWindows, slidingWindow } from './windows.ts';

export const exaone4: Family = {
  type: 'exaone4',
  architecture: 'Exaone4ForCausalLM',
  read(fields, source) {
    fields.only('hidden_act', 'silu', 'swish');
    fields.only('attention_bias', false);
    const plain = plainDecoder(fields, source, { keyValueHeads: 32, normEps: 1e-5 });
    const length = slidingWindow(fields);
    const windows = layerWindows(fields, plain.numLayers, length, everyLayerBut(fields, length > 0));
    const decoder = { ...plain, layer: { ...plain.layer, norms: POST_NORMS } };
    return withAttention(decoder, { qkNorm: 'heads' }, (layer) => ({
      window: windows[layer],
      rope: length === 0 || windows[layer]! > 0 ? plain.layer.attention.rope : null,
    }));
  },
};

/** Where layer_types is missing, all but every sliding_window_pattern-th layer have a window. */
function everyLayerBut(fields: Fields, isUsed: boolean): (layer: number) => boolean {
  const hasTypes = fields.get('layer_types') !== undefined;
  const value = fields.get('sliding_window_pattern'); // published configs have 'LLLG' beside layer_types
  if (hasTypes || !isUsed) return () => false;
  if (fields.isNull('sliding_window_pattern')) fields.fail('sliding_window_pattern', value, 'a number of layers');
  const pattern = fields.count('sliding_window_pattern', 4);
  return (layer) => (layer + 1) % pattern !== 0;
}
