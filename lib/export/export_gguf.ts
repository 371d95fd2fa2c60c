// From a folder in HuggingFace's layout to one GGUF file, which llama.cpp and what is built on it load.
import { basename, join, resolve } from 'node:path';
import { readGenerationConfig } from '../generate/generation_config.ts';
import { stopIdsOf } from '../generate/stop_ids.ts';
import { type HubOptions, resolveModelFolder } from '../io/hub.ts';
import { openModelFolder } from '../io/model_folder.ts';
import { StoredNames } from '../io/stored_names.ts';
import { readConfig, withOwnHead } from '../io/weights.ts';
import { decoderConfig, familyOf } from '../models/config.ts';
import { Decoder } from '../models/decoder.ts';
import type { DecoderConfig } from '../models/decoder_config.ts';
import type { HuggingFaceConfig } from '../models/fields.ts';
import { loadTokenizer } from '../text/tokenizer.ts';
import { type Architecture, architectures, keysOf } from './architectures.ts';
import { type ExportType, exportTypes, ggufTypes } from './gguf_elements.ts';
import { type GgufValue, writeGguf } from './gguf_file.ts';
import { modelTensors } from './gguf_tensors.ts';
import { tokenizerKeys } from './gguf_tokenizer.ts';

export type { ExportType };

export interface ExportOptions extends HubOptions {
  /**
   * Type of the matrices: f32, f16, bf16, or q8_0: 8 bits with a scale for each 32 elements of a row. Vectors are in f32.
   * @default 'bf16'
   */
  type?: ExportType;
  /** Unknown fields of config.json to ignore, if the caller knows that they change no number. */
  ignoreFields?: readonly string[];
}

/** What was written. */
export interface Exported {
  /** llama.cpp's name of the architecture. */
  architecture: string;
  tensors: number;
  /** Bytes of the tensors. */
  bytes: number;
  /** Positions that the file says the model has. */
  contextLength: number;
}

/**
 * Writes a model with its tokenizer and chat template as one GGUF file (version 3). Weights are read, converted and written a few MiB at a
 * time, each element rounded once. The file appears whole or not at all. Of a model of images and text the text part is written.
 *
 * llama.cpp has no sliding windows in some architectures: the file's context length is then no longer than the window, up to which the
 * results are the same.
 * @throws RangeError for a family, a field or a tokenizer with which llama.cpp would compute something else, by its name
 * @example
 * await exportGguf('runs/chat/model', 'chat.gguf', { type: 'q8_0' });
 */
export async function exportGguf(pathOrName: string, out: string, options: ExportOptions = {}): Promise<Exported> {
  const { type = 'bf16', ignoreFields } = options;
  if (!exportTypes.includes(type)) throw new RangeError(`export: type '${type}' is none of ${exportTypes.join(', ')}`);
  const folder = await resolveModelFolder(pathOrName, options);
  const source = await readConfig(folder);
  const stored = decoderConfig(source, { ignoreFields });
  const { architecture, maxPositions } = architectureOf(source);
  if (stored.quantization) {
    throw new RangeError(
      `export: ${folder} is stored in 4 bits (${stored.quantization}); merge its adapter, or give the model that it was made from`,
    );
  }
  const files = await openModelFolder(folder);
  try {
    const names = new StoredNames(folder, files, stored);
    const config = await withOwnHead(stored, names);
    const keys = keysOf(architecture, config, maxPositions);
    using model = new Decoder(config, { device: 'meta', dtype: 'float32' });
    const tensors = modelTensors(architecture, config, model.weights(), names.match(model), type);
    const metadata = new Map<string, GgufValue>([
      ['general.architecture', { type: 'string', value: architecture.name }],
      ['general.type', { type: 'string', value: 'model' }],
      ['general.name', { type: 'string', value: basename(resolve(folder)) }],
      ['general.file_type', { type: 'uint32', value: ggufTypes[type].file }],
      ['general.quantization_version', { type: 'uint32', value: 2 }],
      ...[...keys].map(([key, value]) => [`${architecture.name}.${key}`, value] as const),
      ...(await textKeys(folder, config)),
    ]);
    await writeGguf(out, metadata, tensors);
    return {
      architecture: architecture.name,
      tensors: tensors.length,
      bytes: tensors.reduce((sum, { bytes }) => sum + bytes, 0),
      contextLength: Number(keys.get('context_length')!.value),
    };
  } finally {
    for (const file of new Set(files.values())) await file.close();
  }
}

/** The architecture of a config.json, of a model of images and text that of its text part, and its number of positions. */
function architectureOf(source: HuggingFaceConfig): { architecture: Architecture; maxPositions: unknown } {
  const { type, texts } = familyOf(source);
  const text = (texts ? (source.text_config ?? {}) : source) as HuggingFaceConfig;
  const textType = texts ? String(text.model_type ?? texts[0]!.type) : type;
  const architecture = Object.hasOwn(architectures, textType) ? architectures[textType] : undefined;
  if (!architecture) {
    throw new RangeError(
      `export: config.json: model_type '${textType}' is not written as GGUF; these are: ${Object.keys(architectures).join(', ')}`,
    );
  }
  return { architecture, maxPositions: text.max_position_embeddings };
}

/** Tokenizer, the tokens that end a text, and chat template. */
async function textKeys(folder: string, config: DecoderConfig): Promise<Map<string, GgufValue>> {
  const tokenizer = await loadTokenizer(join(folder, 'tokenizer.json'));
  const question = tokenizer.chatTemplate ? { messages: [{ role: 'user', content: 'x' }] } : null;
  const stopIds = await stopIdsOf(config, tokenizer, await readGenerationConfig(folder), question);
  return await tokenizerKeys(folder, tokenizer, { vocabSize: config.vocabSize, stopIds: [...stopIds] });
}
