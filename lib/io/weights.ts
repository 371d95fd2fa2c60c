// Loads a model from HuggingFace's layout. Files are read in pieces and not mapped into memory: if another process truncated a mapped file,
// ours would crash.
import { stat } from 'node:fs/promises';
import { join } from 'node:path';
import { decoderConfig, withQuantization } from '../models/config.ts';
import { Decoder } from '../models/decoder.ts';
import type { DecoderConfig, Quantization } from '../models/decoder_config.ts';
import type { HuggingFaceConfig } from '../models/fields.ts';
import { QuantizedWeight } from '../ops/quantized_weight.ts';
import type { Device, DeviceName } from '../runtime/device.ts';
import type { Dtype, GradientDtype } from '../runtime/dtype.ts';
import { dtypeBytes } from '../runtime/safetensors_dtype.ts';
import { empty, type Tensor } from '../runtime/tensor.ts';
import { fromFile, holds, toFloat64 } from './elements.ts';
import { type HubOptions, resolveModelFolder } from './hub.ts';
import { parseJsonFile, readSmallFile } from './json.ts';
import { openModelFolder } from './model_folder.ts';
import { PIECE_BYTES, slice } from './pieces.ts';
import type { SafetensorsFile } from './safetensors.ts';
import { isOwnHead, type Place, StoredNames } from './stored_names.ts';
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
  if (!found) return `there is no folder ${folder}, and this is not a name on the Hub (org/name)`;
  if (!found.isDirectory()) return `${folder} is a file; give its folder instead`;
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
   * Dtype of the parameters; weights are converted. If it is narrower than the files', the original values stay available: `AdamW` starts
   * its f32 copies from them, and `saveModel` writes them for weights that were not trained.
   * @default the widest dtype of a stored matrix; float32 for half precision
   */
  dtype?: Dtype;
  /** Dtype of the gradients; see `Decoder`. @default 'float32' */
  gradientDtype?: GradientDtype;
  /**
   * 'nf4': the projections of attention and MLP are quantised while they are read, one at a time, after rounding to `dtype`; only adapters
   * can then be trained. Not with a folder that is quantised already, which is read as it is. @default null
   */
  quantization?: Quantization | null;
  /** Unknown fields of config.json to ignore, if the caller knows that they change no number. */
  ignoreFields?: readonly string[];
}

/**
 * Loads a model from a HuggingFace folder (config.json, safetensors in one file or in shards), or from the Hub by its name `org/name`.
 * `saveModel` keeps the names and dtypes of the files. A base model without a head, whose names lack 'model.', is accepted if the config
 * ties the head. If the file has a separate head, it overrides tie_word_embeddings in config.json with a warning, as in transformers.
 */
export async function loadModel(pathOrName: string, options: LoadOptions = {}): Promise<Decoder> {
  const folder = await resolveModelFolder(pathOrName, options);
  const { ignoreFields, quantization } = options;
  const stored = decoderConfig(await readConfig(folder), { ignoreFields });
  const config = withQuantization(stored, quantization);
  const files = await openModelFolder(folder);
  let kept: SafetensorsFile[] = [];
  try {
    const names = new StoredNames(folder, files, stored);
    const dtype = options.dtype ?? names.widestDtype();
    const settled = await withOwnHead(config, names);
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

/** The config, with a head of its own if the files have one that differs from the embedding, and a warning then. */
export async function withOwnHead(config: DecoderConfig, names: StoredNames): Promise<DecoderConfig> {
  return (await isOwnHead(config, names)) ? untied(config, names.folder) : config;
}

function untied(config: DecoderConfig, folder: string): DecoderConfig {
  process.emitWarning(
    `${folder}: lm_head.weight differs from the embedding, although config.json says tie_word_embeddings: the model gets a separate head`,
    { code: 'MINISEQUENCE_OWN_HEAD' },
  );
  return { ...config, tieWordEmbeddings: false, source: { ...config.source, tie_word_embeddings: false } };
}

/** Overwrites a model's weights with those of a folder that is not quantised. */
export async function readWeights(model: Decoder, folder: string): Promise<void> {
  const files = await openModelFolder(folder);
  try {
    await fill(model, new StoredNames(folder, files, { ...model.config, quantization: null }));
  } finally {
    for (const file of new Set(files.values())) await file.close();
  }
}

/** Requires that the files hold every parameter in its shape, and nothing else. */
async function fill(model: Decoder, names: StoredNames): Promise<void> {
  const found = names.match(model);
  for (const [name, weight] of model.weights()) {
    const place = found.get(name)!;
    if (weight instanceof QuantizedWeight && names.isQuantized) await names.readQuantized(weight, place);
    else if (weight instanceof QuantizedWeight) await quantizeFrom(weight, place);
    else await readInto(weight, place);
  }
  for (const [constant, its] of model.constants()) {
    const { file, name } = found.get(constant)!;
    its.value = toFloat64(name, await file.read(name), file.entries.get(name)!.dtype)[0]!;
  }
}

/** Quantises a tensor of the file, rounded to the model's dtype first. At any time there is one such tensor. */
async function quantizeFrom(weight: QuantizedWeight, place: Place): Promise<void> {
  const { shape, dtype, device } = weight;
  using values = empty(shape, { dtype, device, category: 'workspace' });
  await readInto(values, place);
  weight.quantize(values);
}

async function readInto(parameter: Tensor, { file, name }: Place): Promise<void> {
  const { dtype } = file.entries.get(name)!;
  const bytesEach = dtypeBytes[dtype];
  for await (const { begin, bytes } of file.pieces(name, PIECE_BYTES)) {
    const first = begin / bytesEach;
    const elements = fromFile(name, bytes, dtype, parameter.dtype);
    slice(parameter, first, first + bytes.length / bytesEach, (piece) => piece.write(elements));
    await parameter.device.synchronize(); // so that only one piece waits for the device at a time
  }
}

async function* bytesOf(file: SafetensorsFile, name: string): AsyncGenerator<Uint8Array> {
  for await (const { bytes } of file.pieces(name, PIECE_BYTES)) yield bytes;
}

/** Records the model's origin. Returns the files that must stay open as long as the model, because its dtype is narrower than theirs, or they hold other parts. */
function remember(model: Decoder, names: StoredNames): SafetensorsFile[] {
  const kept = new Set<SafetensorsFile>();
  for (const [name, { file, name: storedName }] of names.match(model)) {
    const parameter = model.namedParameters().get(name);
    if (!parameter || holds(parameter.dtype, file.entries.get(storedName)!.dtype)) continue;
    parameter.stored = new StoredTensor(file, storedName);
    kept.add(file);
  }
  const others = names.carried();
  for (const { file } of others) kept.add(file);
  model.origin = {
    folder: names.folder,
    stored: names.stored(model),
    nameOf: (parameter) => names.nameOf(parameter),
    carried: others.map(({ file, name }) => {
      const { dtype, shape } = file.entries.get(name)!;
      return { name, dtype, shape, data: () => bytesOf(file, name) };
    }),
    close: () => {
      for (const file of kept) file.close().catch(() => {});
    },
  };
  return [...kept];
}
