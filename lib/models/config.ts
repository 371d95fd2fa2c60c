// Reads a HuggingFace config.json of any family.
import { brief, briefName } from '../brief.ts';
import type { DecoderConfig, Quantization } from './decoder_config.ts';
import type { Family } from './families/family.ts';
import { families } from './families/registry.ts';
import { Fields, type HuggingFaceConfig } from './fields.ts';
import { requireOwnClass } from './model_class.ts';

/**
 * Reads a parsed config.json. Throws a RangeError that names the field and what is supported.
 * @param options.ignoreFields fields to treat as absent, at the user's risk: they might change the numbers. Also applies inside
 *   rope_scaling. `Fields.toWrite` describes which of them are saved
 * @param options.quantization of the projections, which are quantised when they are read. @default null: none
 */
export function decoderConfig(
  source: HuggingFaceConfig,
  {
    ignoreFields = [],
    quantization = null,
  }: { ignoreFields?: readonly string[]; quantization?: Quantization | null } = {},
): DecoderConfig {
  const fields = new Fields(source, 'config.json', ignoreFields);
  const family = familyOf(source);
  requireOwnClass(fields, family.architecture);
  const config = family.read(fields, source);
  fields.finish();
  return withQuantization({ ...config, source: fields.toWrite(source) }, quantization);
}

/** The config of a model whose projections are quantised too; it is as it was if they are already, or with null. */
export function withQuantization(config: DecoderConfig, quantization: Quantization | null = null): DecoderConfig {
  if (quantization !== null && quantization !== 'nf4') {
    throw new RangeError(`config.json: quantization must be 'nf4' or null, got ${brief(quantization)}`);
  }
  const wanted = quantization ?? config.quantization;
  if (wanted && config.layers.some(({ mlp }) => mlp.experts)) {
    throw new RangeError(`config.json: quantization must be null for a mixture of experts, got '${wanted}'`);
  }
  return { ...config, quantization: wanted };
}

/** The family of a config.json. */
export function familyOf({ model_type: type }: HuggingFaceConfig): Family {
  const family = typeof type === 'string' ? families.get(type) : undefined;
  if (!family) {
    throw new RangeError(
      `config.json: model_type '${briefName(String(type))}' is none of ${[...families.keys()].join(', ')}`,
    );
  }
  return family;
}
