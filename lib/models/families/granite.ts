// Granite 3: factors on the embedding, the scores, the residual branches and the logits.
import type { Family } from './family.ts';
import { plainDecoder, withAttention } from './plain.ts';
import { onlyFullAttention } from './windows.ts';

export const granite: Family = {
  type: 'granite',
  architecture: 'GraniteForCausalLM',
  read(fields, source) {
    fields.only('hidden_act', 'silu', 'swish');
    onlyFullAttention(fields);
    const bias = fields.boolean('attention_bias', false);
    const plain = plainDecoder(fields, source, { hasMlpBias: true });
    const decoder = {
      ...plain,
      layer: { ...plain.layer, residualScale: fields.positive('residual_multiplier', 1) },
      embedding: { scale: fields.positive('embedding_multiplier', 1), isScaleRounded: false },
      head: { scale: 1 / fields.positive('logits_scaling', 1), softcap: 0 },
    };
    const scale = fields.positive('attention_multiplier', 1); // the default is 1, not 1/sqrt(D)
    return withAttention(decoder, { bias, outputBias: bias, scale });
  },
};
