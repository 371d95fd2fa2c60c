// Gemma 2: norms on both sides of attention and MLP, soft-caps, a window in every other layer, and a scaled embedding.
import type { Family } from './family.ts';
import { plainDecoder, SANDWICH_NORMS, withAttention } from './plain.ts';
import { layerWindows, slidingWindow } from './windows.ts';

export const gemma2: Family = {
  type: 'gemma2',
  architecture: 'Gemma2ForCausalLM',
  read(fields, source) {
    fields.only('hidden_activation', 'gelu_pytorch_tanh');
    fields.get('hidden_act'); // transformers uses hidden_activation instead
    fields.get('sliding_window_size'); // transformers uses sliding_window instead
    fields.only('use_bidirectional_attention', false);
    const plain = plainDecoder(fields, source, { keyValueHeads: 4, headSize: 256, tie: true });
    const bias = fields.boolean('attention_bias', false);
    const softcap = (name: string, fallback: number) => (fields.isNull(name) ? 0 : fields.positive(name, fallback));
    const scale = 1 / Math.sqrt(fields.positive('query_pre_attn_scalar', 256));
    const attention = { bias, outputBias: bias, scale, softcap: softcap('attn_logit_softcapping', 50) };
    const finalSoftcap = softcap('final_logit_softcapping', 30);
    const windows = layerWindows(fields, plain.numLayers, slidingWindow(fields), (layer) => layer % 2 === 0);
    const { layer, norm } = plain;
    const decoder = {
      ...plain,
      layer: { ...layer, norms: SANDWICH_NORMS, mlp: { ...layer.mlp, activation: 'geluTanh' as const } },
      norm: { ...norm, offset: 1 },
      embedding: { scale: Math.sqrt(plain.hiddenSize), isScaleRounded: true },
      head: { scale: 1, softcap: finalSoftcap },
    };
    return withAttention(decoder, attention, (layer) => ({ window: windows[layer] }));
  },
};
