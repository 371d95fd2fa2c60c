// GLM-4, dense models only: norms on both sides, one weight for gate and up, and neighbouring columns of half of each head turn together.
import { ropeConfig, rotatedSize } from '../rope_config.ts';
import type { Family } from './family.ts';
import { plainDecoder, withAttention } from './plain.ts';
import { onlyFullAttention } from './windows.ts';

export const glm4: Family = {
  type: 'glm4',
  architecture: 'Glm4ForCausalLM',
  read(fields, source) {
    fields.only('hidden_act', 'silu', 'swish');
    onlyFullAttention(fields);
    const rope = ropeConfig(fields, 10000, { isPartial: true });
    const plain = plainDecoder(fields, source, { keyValueHeads: 2, headSize: 128, normEps: 1.5625e-7, rope });
    const { layer } = plain;
    const norms = {
      attentionInput: 'input_layernorm',
      attentionOutput: 'post_self_attn_layernorm',
      mlpInput: 'post_attention_layernorm',
      mlpOutput: 'post_mlp_layernorm',
    };
    const decoder = { ...plain, layer: { ...layer, norms, mlp: { ...layer.mlp, isFused: true } } };
    return withAttention(decoder, {
      bias: fields.boolean('attention_bias', true),
      isInterleaved: true,
      rotatedSize: rotatedSize(fields, layer.attention.headSize, 0.5),
    });
  },
};
