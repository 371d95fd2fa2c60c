// Ministral 3: YaRN, and queries that grow with their position.
import { ropeConfig, ropeFields } from '../rope_config.ts';
import type { Family } from './family.ts';
import { plainDecoder, withAttention } from './plain.ts';
import { layerWindows, slidingWindow } from './windows.ts';

/** What transformers takes for rope_parameters where there are none. */
const ROPE = {
  type: 'yarn',
  rope_theta: 1e6,
  factor: 16,
  original_max_position_embeddings: 16384,
  beta_fast: 32,
  beta_slow: 1,
  mscale_all_dim: 1,
  mscale: 1,
  llama_4_scaling_beta: 0.1,
};

export const ministral3: Family = {
  type: 'ministral3',
  architecture: 'Ministral3ForCausalLM',
  read(fields, source) {
    fields.only('hidden_act', 'silu', 'swish');
    fields.only('attention_bias', false);
    const rope = ropeConfig(fields, 10000, { others: ['llama_4_scaling_beta'], defaults: ROPE });
    const parameters = ropeFields(fields, ROPE);
    const isScaled = rope.type === 'yarn' || rope.type === 'llama3'; // where transformers fills in max_position_embeddings
    const maxPositions = isScaled ? fields.count('max_position_embeddings') : undefined;
    const positions = parameters.count('original_max_position_embeddings', maxPositions);
    const factor = parameters.number('llama_4_scaling_beta');
    const plain = plainDecoder(fields, source, { keyValueHeads: 8, headSize: 128, normEps: 1e-5, rope });
    const length = fields.get('sliding_window') === undefined ? 0 : slidingWindow(fields);
    const windows = layerWindows(fields, plain.numLayers, length, () => true);
    return withAttention(plain, { queryGrowth: factor === 0 ? null : { factor, positions } }, (layer) => ({
      window: windows[layer],
    }));
  },
};
