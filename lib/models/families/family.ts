// A model family: its names, and a reader of its config.json.
import type { DecoderConfig } from '../decoder_config.ts';
import type { Fields, HuggingFaceConfig } from '../fields.ts';

export interface Family {
  /** model_type in config.json. */
  type: string;
  /** Classes that `architectures` in config.json may name. */
  architecture: string;
  /** Of models of images and text: the families that the text part may be of. */
  texts?: readonly Family[];
  /** Reads all of the family's fields, with the defaults of HuggingFace transformers. */
  read(fields: Fields, source: HuggingFaceConfig): DecoderConfig;
}
