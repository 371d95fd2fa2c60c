// Reads a HuggingFace config.json of any family.
import { briefName } from '../brief.ts';
import type { DecoderConfig } from './decoder_config.ts';
import { gemma2, llama, mistral, qwen2, qwen3 } from './families.ts';
import { Fields, type HuggingFaceConfig } from './fields.ts';

const families: Record<string, (fields: Fields, source: HuggingFaceConfig) => DecoderConfig> = {
  llama,
  mistral,
  qwen2,
  qwen3,
  gemma2,
};

/**
 * Reads a parsed config.json. Throws a RangeError that names the field and what is supported.
 * @param options.ignoreFields fields that are passed over, though nobody knows whether they change the numbers; those within rope_scaling
 *   too
 */
export function decoderConfig(
  source: HuggingFaceConfig,
  { ignoreFields = [] }: { ignoreFields?: readonly string[] } = {},
): DecoderConfig {
  const type = source.model_type;
  const family = typeof type === 'string' && Object.hasOwn(families, type) ? families[type] : undefined;
  if (!family) {
    throw new RangeError(
      `config.json: model_type '${briefName(String(type))}' is none of ${Object.keys(families).join(', ')}`,
    );
  }
  const fields = new Fields(source, 'config.json', ignoreFields);
  const config = family(fields, source);
  fields.finish();
  return config;
}
