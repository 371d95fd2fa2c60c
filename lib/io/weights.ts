// A model's weights in and out, in HuggingFace's layout. Files are read and written in pieces: a file that is mapped into memory and
// then cut short by another process would end ours.
import { mkdir, readFile, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import type { Device, DeviceName } from '../device.ts';
import type { Dtype, GradientDtype } from '../dtype.ts';
import { decoderConfig } from '../models/config.ts';
import { Decoder } from '../models/decoder.ts';
import type { HuggingFaceConfig } from '../models/fields.ts';
import { tidy } from '../scope.ts';
import type { Tensor } from '../tensor.ts';
import { dtypeFor, elementBytes, fileDtypes, fromFile, toFile } from './elements.ts';
import { type HubOptions, resolveModelFolder } from './hub.ts';
import { writeJson } from './json.ts';
import { carryFiles, INDEX_FILE, openModelFolder, WEIGHTS_FILE } from './model_folder.ts';
import {
  dtypeBytes,
  type SafetensorsDtype,
  SafetensorsError,
  type SafetensorsFile,
  type TensorToWrite,
  writeSafetensors,
} from './safetensors.ts';

/** Host memory for one piece of a tensor on its way; a multiple of every dtype's size. */
const PIECE_BYTES = 64 * 2 ** 20;
/** As HuggingFace's default. */
const MAX_SHARD_BYTES = 5e9;

/** Reads a folder's config.json. */
export async function readConfig(folder: string): Promise<HuggingFaceConfig> {
  const path = join(folder, 'config.json');
  try {
    return JSON.parse(await readFile(path, 'utf8')) as HuggingFaceConfig;
  } catch (error) {
    throw new Error(`${path}: cannot be read: ${(error as Error).message}`, { cause: error });
  }
}

export interface LoadOptions extends HubOptions {
  device?: Device | DeviceName;
  /** Of the parameters; weights are converted. @default what the embedding is stored in, float32 for half precision */
  dtype?: Dtype;
  /** Of the gradients; see `Decoder`. @default 'float32' */
  gradientDtype?: GradientDtype;
}

/**
 * A model from a HuggingFace folder (config.json, safetensors in one file or shards), or from the Hub by its name `org/name`.
 * Remembers what it was stored as, which `saveModel` keeps.
 */
export async function loadModel(pathOrName: string, options: LoadOptions = {}): Promise<Decoder> {
  const folder = await resolveModelFolder(pathOrName, options);
  const config = decoderConfig(await readConfig(folder));
  const files = await openModelFolder(folder);
  try {
    const dtype = options.dtype ?? storedDtype(folder, files);
    const model = new Decoder(config, { device: options.device, dtype, gradientDtype: options.gradientDtype });
    try {
      await fill(model, folder, files);
      return model;
    } catch (error) {
      model.dispose();
      throw error;
    }
  } finally {
    for (const file of new Set(files.values())) await file.close();
  }
}

function storedDtype(folder: string, files: ReadonlyMap<string, SafetensorsFile>): Dtype {
  const name = 'model.embed_tokens.weight';
  const stored = files.get(name)?.entries.get(name)?.dtype;
  if (!stored) throw new SafetensorsError(`${folder}: parameter '${name}' is in no file`);
  const dtype = dtypeFor(stored);
  if (!dtype) throw new SafetensorsError(`${folder}: '${name}' has dtype ${stored}, which is no weight's`);
  return dtype;
}

/** Overwrites a model's parameters with those of a folder. */
export async function readWeights(model: Decoder, folder: string): Promise<void> {
  const files = await openModelFolder(folder);
  const { origin } = model;
  try {
    await fill(model, folder, files);
  } finally {
    model.origin = origin;
    for (const file of new Set(files.values())) await file.close();
  }
}

/** Every parameter must be there, in its shape, and nothing else. */
async function fill(model: Decoder, folder: string, files: ReadonlyMap<string, SafetensorsFile>): Promise<void> {
  const named = model.namedParameters();
  const dtypes = new Map<string, SafetensorsDtype>();
  for (const [name, file] of files) {
    // A tied head may be stored too; it is the embedding again. Old checkpoints store the rotary frequencies.
    const isTiedHead = name === 'lm_head.weight' && model.config.tieWordEmbeddings;
    if (!named.has(name) && !isTiedHead && !name.endsWith('.rotary_emb.inv_freq')) {
      throw new SafetensorsError(`${file.path}: the model has no parameter '${name}'`);
    }
    if (named.has(name) || isTiedHead) dtypes.set(name, file.entries.get(name)!.dtype);
  }
  for (const [name, parameter] of named) {
    const file = files.get(name);
    if (!file) throw new SafetensorsError(`${folder}: parameter '${name}' is in no file`);
    const { shape } = file.entries.get(name)!;
    if (shape.join() !== parameter.shape.join()) {
      throw new SafetensorsError(`${file.path}: '${name}' is (${shape}), the model's (${parameter.shape})`);
    }
    await readInto(parameter, name, file);
  }
  model.origin = { folder, dtypes };
}

async function readInto(parameter: Tensor, name: string, file: SafetensorsFile): Promise<void> {
  const { dtype } = file.entries.get(name)!;
  const bytesEach = dtypeBytes[dtype];
  for await (const { begin, bytes } of file.pieces(name, PIECE_BYTES)) {
    const first = begin / bytesEach;
    const elements = fromFile(name, bytes, dtype, parameter.dtype);
    slice(parameter, first, first + bytes.length / bytesEach, (piece) => piece.write(elements));
    await parameter.device.synchronize(); // so that one piece at a time waits for the device
  }
}

/** Calls fn with elements [begin, end) of a tensor. */
function slice<T>(tensor: Tensor, begin: number, end: number, fn: (piece: Tensor) => T): T {
  return tidy(() => fn(tensor.reshape([tensor.size]).rows(begin, end)));
}

export interface SaveOptions {
  /** What weights are written in. @default what they were loaded from, else the model's dtype */
  dtype?: Dtype | 'float16';
  /** Folder whose tokenizer files are written beside the weights. @default the one that the model was loaded from */
  tokenizerFrom?: string | null;
  /** Weights that take more are written in shards with an index. @default 5e9 */
  maxShardBytes?: number;
}

/**
 * Writes config.json, the weights and the tokenizer's files in HuggingFace's layout. Each file appears whole or not at all; where shards
 * replace others, the index goes first and comes last, so that a kill leaves no mixture that loads.
 */
export async function saveModel(model: Decoder, folder: string, options: SaveOptions = {}): Promise<void> {
  const { dtype, tokenizerFrom = model.origin?.folder ?? null, maxShardBytes = MAX_SHARD_BYTES } = options;
  if (model.lora)
    throw new Error('saveModel: the model has adapters; saveAdapter writes them, mergeLora makes them part of it');
  await mkdir(folder, { recursive: true });
  const tensors = storedTensors(model, dtype);
  if (tokenizerFrom && tokenizerFrom !== folder) await carryFiles(tokenizerFrom, folder);
  const shards = shardsOf(tensors, maxShardBytes);
  const indexPath = join(folder, INDEX_FILE);
  const weightMap: Record<string, string> = {};
  const paths = shards.map((_, i) =>
    shards.length === 1 ? WEIGHTS_FILE : `model-${numbered(i + 1)}-of-${numbered(shards.length)}.safetensors`,
  );
  const temporary = (name: string) => join(folder, `.${name}.new`);
  for (const [i, shard] of shards.entries()) {
    await writeSafetensors(temporary(paths[i]!), shard);
    for (const { name } of shard) weightMap[name] = paths[i]!;
  }
  await writeJson(join(folder, 'config.json'), configOf(model, tensors));
  if (shards.length > 1) await rm(join(folder, WEIGHTS_FILE), { force: true });
  await rm(indexPath, { force: true });
  for (const path of paths) await rename(temporary(path), join(folder, path));
  if (shards.length > 1) {
    const metadata = { total_size: tensors.reduce((sum, tensor) => sum + bytesOf(tensor), 0) };
    await writeJson(indexPath, { metadata, weight_map: weightMap });
  }
}

const numbered = (i: number) => String(i).padStart(5, '0');
const bytesOf = ({ dtype, shape }: TensorToWrite) => shape.reduce((product, size) => product * size, dtypeBytes[dtype]);

/** The parameters in their order, and a tied head where the model was loaded with one. */
function storedTensors(model: Decoder, dtype?: Dtype | 'float16'): TensorToWrite[] {
  const asked = dtype === 'float16' ? 'F16' : dtype && fileDtypes[dtype];
  if (dtype && !asked)
    throw new TypeError(`saveModel: dtype must be float32, bfloat16, float16 or float64, got ${dtype}`);
  const stored = model.origin?.dtypes;
  const named = new Map(model.namedParameters());
  if (stored?.has('lm_head.weight') && !named.has('lm_head.weight')) {
    named.set('lm_head.weight', named.get('model.embed_tokens.weight')!);
  }
  return [...named].map(([name, parameter]) => {
    const to = asked ?? stored?.get(name) ?? fileDtypes[parameter.dtype]!;
    return { name, dtype: to, shape: parameter.shape, data: () => elementsOf(parameter, to) };
  });
}

async function* elementsOf(parameter: Tensor, to: SafetensorsDtype): AsyncGenerator<Uint8Array> {
  const count = PIECE_BYTES / elementBytes(parameter.dtype);
  for (let begin = 0; begin < parameter.size; begin += count) {
    const end = Math.min(begin + count, parameter.size);
    yield toFile(await slice(parameter, begin, end, (piece) => piece.data()), parameter.dtype, to);
  }
}

function shardsOf(tensors: readonly TensorToWrite[], maxBytes: number): TensorToWrite[][] {
  const shards: TensorToWrite[][] = [[]];
  let bytes = 0;
  for (const tensor of tensors) {
    if (bytes > 0 && bytes + bytesOf(tensor) > maxBytes) {
      shards.push([]);
      bytes = 0;
    }
    shards.at(-1)!.push(tensor);
    bytes += bytesOf(tensor);
  }
  return shards;
}

/** The config that the model was made from, with the dtype that is written, spelled as it was. */
function configOf(model: Decoder, tensors: readonly TensorToWrite[]): HuggingFaceConfig {
  const { source } = model.config;
  const names: Partial<Record<SafetensorsDtype, string>> = {
    F64: 'float64',
    F32: 'float32',
    F16: 'float16',
    BF16: 'bfloat16',
  };
  const type = String(source.model_type);
  const family = type[0]!.toUpperCase() + type.slice(1);
  const key = 'torch_dtype' in source ? 'torch_dtype' : 'dtype';
  return { architectures: [`${family}ForCausalLM`], ...source, [key]: names[tensors[0]!.dtype] };
}
