// SmolLM3: some layers have no rotary positions (NoPE); in the published models every fourth.
import type { Fields } from '../fields.ts';
import type { Family } from './family.ts';
import { plainDecoder, withAttention } from './plain.ts';
import { layerWindows } from './windows.ts';

export const smollm3: Family = {
  type: 'smollm3',
  architecture: 'SmolLM3ForCausalLM',
  read(fields, source) {
    fields.only('hidden_act', 'silu', 'swish');
    const bias = fields.boolean('attention_bias', false);
    const plain = plainDecoder(fields, source, { keyValueHeads: 4, tie: true, ropeTheta: 2e6, hasMlpBias: true });
    const isRotated = rotatedLayers(fields, plain.numLayers);
    const isUsed = fields.boolean('use_sliding_window', false);
    const length = fields.get('sliding_window') === undefined ? 0 : fields.count('sliding_window');
    const windows = layerWindows(fields, plain.numLayers, isUsed ? length : 0, (layer) => !isRotated[layer]);
    return withAttention(plain, { bias, outputBias: bias }, (layer) => ({
      window: windows[layer],
      rope: isRotated[layer] ? plain.layer.attention.rope : null,
    }));
  },
};

/** no_rope_layers has 1 for a layer with rotary positions and 0 for one without. Its default: every no_rope_layer_interval-th has none. */
function rotatedLayers(fields: Fields, numLayers: number): boolean[] {
  const interval = fields.count('no_rope_layer_interval', 4);
  const layers = fields.get('no_rope_layers');
  if (layers === undefined) return Array.from({ length: numLayers }, (_, layer) => (layer + 1) % interval !== 0);
  if (!Array.isArray(layers) || layers.length < numLayers) {
    return fields.fail('no_rope_layers', layers, `a list of at least ${numLayers}, one for each layer`);
  }
  return layers.slice(0, numLayers).map((isRotated: unknown) => {
    if (isRotated !== 0 && isRotated !== 1) fields.fail('no_rope_layers', isRotated, '0 or 1 for each layer');
    return isRotated === 1;
  });
}
