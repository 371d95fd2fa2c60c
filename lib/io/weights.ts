// A model's weights from HuggingFace's layout into place. Files are read in pieces: a file that is mapped into memory and then cut short by
// another process would end ours.
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { decoderConfig } from '../models/config.ts';
import { Decoder } from '../models/decoder.ts';
import type { DecoderConfig } from '../models/decoder_config.ts';
import type { HuggingFaceConfig } from '../models/fields.ts';
import type { Device, DeviceName } from '../runtime/device.ts';
import type { Dtype, GradientDtype } from '../runtime/dtype.ts';
import { dtypeBytes } from '../runtime/safetensors_dtype.ts';
import type { Tensor } from '../runtime/tensor.ts';
import { fromFile, holds } from './elements.ts';
import { type HubOptions, resolveModelFolder } from './hub.ts';
import { parseJsonFile, readSmallFile } from './json.ts';
import { openModelFolder } from './model_folder.ts';
import { PIECE_BYTES, slice } from './pieces.ts';
import type { SafetensorsFile } from './safetensors.ts';
import { isOwnHead, StoredNames } from './stored_names.ts';
import { StoredTensor } from './stored_tensor.ts';

/** Reads a folder's config.json. */
export async function readConfig(folder: string): Promise<HuggingFaceConfig> {
  const path = join(folder, 'config.json');
  let text: string;
  try {
    text = await readSmallFile(path);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (error instanceof RangeError) throw error;
    const problem = code === 'ENOENT' || code === 'ENOTDIR' ? await whyNoConfig(folder) : message;
    throw new Error(`${path}: cannot be read: ${problem}`, { cause: error });
  }
  const source = parseJsonFile(path, text);
  if (typeof source !== 'object' || source === null || Array.isArray(source)) {
    throw new Error(`${path}: is not a JSON object`);
  }
  return source as HuggingFaceConfig;
}

async function whyNoConfig(folder: string): Promise<string> {
  const found = await stat(folder).catch(() => null);
  if (!found) return `there is no folder ${folder}, and it is no name on the Hub (org/name)`;
  if (!found.isDirectory()) return `${folder} is a file; give the folder that it is in`;
  const isAdapter = await stat(join(folder, 'adapter_config.json')).then(
    () => true,
    () => false,
  );
  return isAdapter
    ? 'the folder holds an adapter; give the model that it was made for, and the folder as --adapter'
    : 'the folder has no such file';
}

export interface LoadOptions extends HubOptions {
  device?: Device | DeviceName;
  /**
   * Of the parameters; weights are converted. What the dtype does not hold is remembered: `AdamW` begins its f32 copies with it, and
   * `saveModel` writes it back for what was not trained. @default the widest that a matrix is stored in, float32 for half precision
   */
  dtype?: Dtype;
  /** Of the gradients; see `Decoder`. @default 'float32' */
  gradientDtype?: GradientDtype;
  /** Unknown fields of config.json to ignore; the caller vouches that they change no number. */
  ignoreFields?: readonly string[];
}

/**
 * A model from a HuggingFace folder (config.json, safetensors in one file or shards), or from the Hub by its name `org/name`.
 * Remembers what it was stored as, which `saveModel` keeps. A base model without head, whose names have no 'model.' in front, is taken
 * where the head is tied. A head of its own in the file goes before config.json's tie_word_embeddings, with a warning, as in transformers.
 */
export async function loadModel(pathOrName: string, options: LoadOptions = {}): Promise<Decoder> {
  const folder = await resolveModelFolder(pathOrName, options);
  const config = decoderConfig(await readConfig(folder), { ignoreFields: options.ignoreFields });
  const files = await openModelFolder(folder);
  let kept: SafetensorsFile[] = [];
  try {
    const names = new StoredNames(folder, files, config);
    const dtype = options.dtype ?? names.widestDtype();
    const settled = (await isOwnHead(config, names)) ? untied(config, folder) : config;
    const model = new Decoder(settled, { device: options.device, dtype, gradientDtype: options.gradientDtype });
    try {
      await fill(model, names);
      kept = remember(model, names);
      return model;
    } catch (error) {
      model.dispose();
      throw error;
    }
  } finally {
    for (const file of new Set(files.values())) if (!kept.includes(file)) await file.close();
  }
}

function untied(config: DecoderConfig, folder: string): DecoderConfig {
  process.emitWarning(
    `${folder}: lm_head.weight differs from the embedding, though config.json says tie_word_embeddings: the model has both`,
    { code: 'MINISEQUENCE_OWN_HEAD' },
  );
  return { ...config, tieWordEmbeddings: false, source: { ...config.source, tie_word_embeddings: false } };
}

/** Overwrites a model's parameters with those of a folder. */
export async function readWeights(model: Decoder, folder: string): Promise<void> {
  const files = await openModelFolder(folder);
  try {
    await fill(model, new StoredNames(folder, files, model.config));
  } finally {
    for (const file of new Set(files.values())) await file.close();
  }
}

/** Every parameter must be there, in its shape, and nothing else. */
async function fill(model: Decoder, names: StoredNames): Promise<void> {
  const found = names.match(model);
  for (const [name, parameter] of model.namedParameters()) await readInto(parameter, found.get(name)!);
}

async function readInto(parameter: Tensor, { file, name }: { file: SafetensorsFile; name: string }): Promise<void> {
  const { dtype } = file.entries.get(name)!;
  const bytesEach = dtypeBytes[dtype];
  for await (const { begin, bytes } of file.pieces(name, PIECE_BYTES)) {
    const first = begin / bytesEach;
    const elements = fromFile(name, bytes, dtype, parameter.dtype);
    slice(parameter, first, first + bytes.length / bytesEach, (piece) => piece.write(elements));
    await parameter.device.synchronize(); // so that one piece at a time waits for the device
  }
}

/** Records in the model where it came from. Returns the files that stay open, as long as the model, for values that its dtype does not hold. */
function remember(model: Decoder, names: StoredNames): SafetensorsFile[] {
  const kept = new Set<SafetensorsFile>();
  for (const [name, { file, name: storedName }] of names.match(model)) {
    const parameter = model.namedParameters().get(name);
    if (!parameter || holds(parameter.dtype, file.entries.get(storedName)!.dtype)) continue;
    parameter.stored = new StoredTensor(file, storedName);
    kept.add(file);
  }
  model.origin = {
    folder: names.folder,
    stored: names.stored(model),
    close: () => {
      for (const file of kept) file.close().catch(() => {});
    },
  };
  return [...kept];
}
