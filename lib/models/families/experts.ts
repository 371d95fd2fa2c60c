// What families of mixtures of experts have in common.
import type { DecoderConfig, ExpertsSpec } from '../decoder_config.ts';
import type { Fields } from '../fields.ts';

interface Options {
  /** F of an expert. @default that of the decoder's MLP */
  intermediateSize?: number;
  /** @default every layer has */
  hasExperts?: (layer: number) => boolean;
}

/** The decoder with a mixture of experts in place of the MLP of layers that have one. */
export function withExperts(
  fields: Fields,
  decoder: DecoderConfig,
  experts: ExpertsSpec,
  { intermediateSize, hasExperts = () => true }: Options = {},
): DecoderConfig {
  const { count, perToken } = experts;
  if (perToken > count) fields.fail('num_experts_per_tok', perToken, `at most the number of experts, ${count}`);
  fields.only('output_router_logits', false); // true adds a loss that balances the experts' load
  const layers = decoder.layers.map((layer, index) => {
    if (!hasExperts(index)) return layer;
    const { mlp } = layer;
    return { ...layer, mlp: { ...mlp, intermediateSize: intermediateSize ?? mlp.intermediateSize, experts } };
  });
  return { ...decoder, layers };
}

/** Every decoder_sparse_step-th layer has experts, except those of mlp_only_layers. */
export function layersWithExperts(fields: Fields): (layer: number) => boolean {
  const step = fields.count('decoder_sparse_step', 1);
  const without = fields.get('mlp_only_layers') ?? [];
  if (!Array.isArray(without) || !without.every((layer) => Number.isInteger(layer))) {
    fields.fail('mlp_only_layers', without, 'a list of layers');
  }
  return (layer) => (layer + 1) % step === 0 && !(without as number[]).includes(layer);
}
