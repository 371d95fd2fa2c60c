// A model's weights in and out, in HuggingFace's layout.
import { copyFile, mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Device, DeviceName } from '../device.ts';
import { type Dtype, type TensorData, toBfloat16, toFloat32 } from '../dtype.ts';
import { decoderConfig } from '../models/config.ts';
import { Decoder } from '../models/decoder.ts';
import type { HuggingFaceConfig } from '../models/fields.ts';
import type { Tensor } from '../tensor.ts';
import {
  openModelFolder,
  type SafetensorsDtype,
  SafetensorsError,
  type TensorToWrite,
  writeSafetensors,
} from './safetensors.ts';

const fileDtypes: Partial<Record<Dtype, SafetensorsDtype>> = { float32: 'F32', bfloat16: 'BF16', float64: 'F64' };

/** Reads and checks a folder's config.json. */
export async function readConfig(folder: string): Promise<HuggingFaceConfig> {
  const path = join(folder, 'config.json');
  try {
    return JSON.parse(await readFile(path, 'utf8')) as HuggingFaceConfig;
  } catch (error) {
    throw new Error(`${path}: cannot be read: ${(error as Error).message}`, { cause: error });
  }
}

/**
 * A model from a HuggingFace folder (config.json, safetensors in one file or shards).
 * @param options.dtype of the parameters; weights are converted. @default 'float32'
 */
export async function loadModel(
  folder: string,
  options: { device?: Device | DeviceName; dtype?: Dtype } = {},
): Promise<Decoder> {
  const model = new Decoder(decoderConfig(await readConfig(folder)), options);
  try {
    await loadWeights(model, folder);
    return model;
  } catch (error) {
    model.dispose();
    throw error;
  }
}

/** Overwrites a model's parameters, one tensor at a time. Every parameter must be there, in its shape, and nothing else. */
export async function loadWeights(model: Decoder, folder: string): Promise<void> {
  const files = await openModelFolder(folder);
  try {
    const named = model.namedParameters();
    for (const [name, file] of files) {
      // A tied head may be stored too; it is the embedding again. Old checkpoints store the rotary frequencies.
      const isRedundant =
        (name === 'lm_head.weight' && model.config.tieWordEmbeddings) || name.endsWith('.rotary_emb.inv_freq');
      if (!named.has(name) && !isRedundant)
        throw new SafetensorsError(`${file.path}: the model has no parameter '${name}'`);
    }
    for (const [name, parameter] of named) {
      const file = files.get(name);
      if (!file) throw new SafetensorsError(`${folder}: parameter '${name}' is in no file`);
      const { dtype, shape } = file.entries.get(name)!;
      if (shape.join() !== parameter.shape.join()) {
        throw new SafetensorsError(`${file.path}: '${name}' is (${shape}), the model's (${parameter.shape})`);
      }
      parameter.write(convert(name, await file.read(name), dtype, parameter.dtype));
      await model.device.synchronize(); // so that one tensor at a time is held twice
    }
  } finally {
    for (const file of new Set(files.values())) await file.close();
  }
}

/**
 * Writes config.json and model.safetensors; each appears whole or not at all.
 * @param options.tokenizer path of a tokenizer.json to put beside them
 */
export async function saveModel(
  model: Decoder,
  folder: string,
  options: { tokenizer?: string | null } = {},
): Promise<void> {
  await mkdir(folder, { recursive: true });
  const config = { architectures: ['LlamaForCausalLM'], ...model.config.source, dtype: model.dtype };
  const configPath = join(folder, 'config.json');
  await writeFile(`${configPath}.tmp`, `${JSON.stringify(config, null, 2)}\n`);
  await rename(`${configPath}.tmp`, configPath);
  if (options.tokenizer) await copyFile(options.tokenizer, join(folder, 'tokenizer.json'));
  await writeSafetensors(join(folder, 'model.safetensors'), [...model.namedParameters()].map(tensorToWrite));
}

function tensorToWrite([name, parameter]: [string, Tensor]): TensorToWrite {
  const dtype = fileDtypes[parameter.dtype];
  if (!dtype) throw new TypeError(`saveModel: ${parameter} has no dtype of safetensors`);
  return {
    name,
    dtype,
    shape: parameter.shape,
    data: async () => {
      const data = await parameter.data();
      return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    },
  };
}

/** Bytes of a file's dtype as elements of a parameter's. */
function convert(name: string, bytes: Uint8Array, from: SafetensorsDtype, to: Dtype): TensorData | Uint8Array {
  if (fileDtypes[to] === from) return bytes;
  const floats = toFloats(name, bytes, from);
  if (to === 'float32') return floats instanceof Float32Array ? floats : Float32Array.from(floats);
  return to === 'bfloat16' ? toBfloat16(floats) : Float64Array.from(floats);
}

function toFloats(
  name: string,
  { buffer, byteOffset, byteLength }: Uint8Array,
  dtype: SafetensorsDtype,
): Float32Array | Float64Array {
  switch (dtype) {
    case 'F32':
      return new Float32Array(buffer, byteOffset, byteLength / 4);
    case 'F64':
      return new Float64Array(buffer, byteOffset, byteLength / 8);
    case 'BF16':
      return toFloat32(new Uint16Array(buffer, byteOffset, byteLength / 2));
    case 'F16':
      return Float32Array.from(new Uint16Array(buffer, byteOffset, byteLength / 2), halfToFloat);
    default:
      throw new SafetensorsError(`'${name}' has dtype ${dtype}, which is no weight's`);
  }
}

/** IEEE half precision; exact. */
function halfToFloat(word: number): number {
  const sign = word & 0x8000 ? -1 : 1;
  const exponent = (word >> 10) & 0x1f;
  const fraction = word & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? Number.NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}
