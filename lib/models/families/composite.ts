// Models of images and text, of which the text part is read: its config is in text_config.
import { Fields } from '../fields.ts';
import type { Family } from './family.ts';
import { quantizationOf } from './quantised.ts';

interface Composite {
  type: string;
  architecture: string;
  /** What text_config may be of; the first is meant where it does not say. */
  texts: readonly [Family, ...Family[]];
  /** Fields about images and sound. */
  others: string;
  /** Defaults of text_config that its family requires. */
  defaults?: Readonly<Record<string, unknown>>;
}

export function composite({ type, architecture, texts, others, defaults = {} }: Composite): Family {
  return {
    type,
    architecture,
    texts,
    read(fields, source) {
      const text = { ...defaults, ...fields.object('text_config') };
      const { model_type: textType = texts[0].type } = text as { model_type?: unknown };
      const family = texts.find((one) => one.type === textType);
      if (!family) return fields.fail('text_config.model_type', textType, texts.map((one) => one.type).join(' or '));
      const inner = new Fields(text, 'config.json: text_config', fields.ignored);
      const config = family.read(inner, text);
      inner.get('tie_word_embeddings');
      if (quantizationOf(fields) ?? config.quantization) {
        fields.fail(
          'quantization_config',
          fields.get('quantization_config'),
          'absent: text parts in 4 bits are not read',
        );
      }
      inner.finish();
      for (const name of others.split(/\s+/)) fields.get(name);
      const eos = [fields.get('eos_token_id') ?? []].flat().filter((id): id is number => typeof id === 'number');
      const isTiedInside = inner.get('tie_word_embeddings') === undefined || config.tieWordEmbeddings;
      return {
        ...config,
        isTextPart: true,
        tieWordEmbeddings: fields.boolean('tie_word_embeddings', isTiedInside),
        eosTokenIds: eos.length > 0 ? eos : config.eosTokenIds,
        source,
      };
    },
  };
}
