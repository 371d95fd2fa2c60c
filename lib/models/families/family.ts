// What a model family is: a reader of its config.json.
import type { DecoderConfig } from '../decoder_config.ts';
import type { Fields, HuggingFaceConfig } from '../fields.ts';

export interface Family {
  /** Its config.json's model_type. */
  type: string;
  /** Its config.json's architectures. */
  architecture: string;
  /** Reads every field that the family has; defaults are those of HuggingFace transformers. */
  read(fields: Fields, source: HuggingFaceConfig): DecoderConfig;
}
