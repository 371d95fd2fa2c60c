// Writes a model in HuggingFace's layout: config.json, weights in one file or in shards, and the tokenizer's files.
import { existsSync } from 'node:fs';
import { readdir, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { familyOf } from '../models/config.ts';
import type { Decoder } from '../models/decoder.ts';
import type { HuggingFaceConfig } from '../models/fields.ts';
import type { Dtype } from '../runtime/dtype.ts';
import { dtypeBytes, type SafetensorsDtype } from '../runtime/safetensors_dtype.ts';
import { fileDtypes, toFile } from './elements.ts';
import { writeJson } from './json.ts';
import { makeFolder } from './make_folder.ts';
import { ADAPTER_FILES, carryFiles, INDEX_FILE, WEIGHTS_FILE } from './model_folder.ts';
import { stageSafetensors, type TensorToWrite } from './safetensors.ts';
import { elementsOf, warnOnce } from './unrounded.ts';
import { removeLeftovers, type StagedFile, syncFolder } from './whole_file.ts';

/** HuggingFace's default. */
const MAX_SHARD_BYTES = 5e9;

export interface SaveOptions {
  /** Dtype of the weights in the file. @default the dtype that they were loaded from, else the model's */
  dtype?: Dtype | 'float16';
  /** Folder from which tokenizer files are copied. @default the one that the model was loaded from */
  tokenizerFrom?: string | null;
  /** Weights that take more bytes are written in shards with an index. @default 5e9 */
  maxShardBytes?: number;
}

/**
 * Writes config.json, the weights and the tokenizer's files in HuggingFace's layout. If the file's dtype is wider than the model's, a
 * parameter's f32 master copy in a live optimizer is written instead, and values that were not trained are written as they were loaded.
 * Each file is written atomically. If shards replace others, the old index is removed first and the new one written last, so that a killed
 * process leaves no loadable mixture. Shards of an earlier save are removed, and a folder with an adapter is refused, because readers would
 * load these instead. A failure leaves no temporary files.
 */
export async function saveModel(model: Decoder, folder: string, options: SaveOptions = {}): Promise<void> {
  const { dtype, tokenizerFrom = model.origin?.folder ?? null, maxShardBytes = MAX_SHARD_BYTES } = options;
  if (model.lora)
    throw new Error(
      'saveModel: the model has adapters; save them with saveAdapter, or merge them with mergeLora first',
    );
  if (model.config.quantization) {
    throw new Error(
      `saveModel: the model's projections are in 4 bits (${model.config.quantization}), which no file of ours holds; save adapters with ` +
        'saveAdapter, merge them with mergeLora, or call model.dequantize() to save what the weights stand for',
    );
  }
  await makeFolder(folder, 'saveModel');
  const adapter = ADAPTER_FILES.find((name) => existsSync(join(folder, name)));
  if (adapter)
    throw new Error(
      `saveModel: ${folder}: holds ${adapter}, which readers would load with the model; choose another folder`,
    );
  await removeLeftovers(folder);
  const tensors = storedTensors(model, dtype);
  if (tokenizerFrom && tokenizerFrom !== folder) await carryFiles(tokenizerFrom, folder);
  const shards = shardsOf(tensors, maxShardBytes);
  const indexPath = join(folder, INDEX_FILE);
  const weightMap: Record<string, string> = {};
  const staged: StagedFile[] = [];
  try {
    for (const [i, shard] of shards.entries()) {
      const name =
        shards.length === 1 ? WEIGHTS_FILE : `model-${numbered(i + 1)}-of-${numbered(shards.length)}.safetensors`;
      staged.push(await stageSafetensors(join(folder, name), shard));
      for (const tensor of shard) weightMap[tensor.name] = name;
    }
    await writeJson(join(folder, 'config.json'), configOf(model, tensors));
    if (shards.length > 1) await rm(join(folder, WEIGHTS_FILE), { force: true });
    await rm(indexPath, { force: true });
    await syncFolder(folder);
    for (const shard of staged) await shard.commit();
  } catch (error) {
    for (const shard of staged) await shard.discard();
    throw error;
  }
  if (shards.length > 1) {
    const metadata = { total_size: tensors.reduce((sum, tensor) => sum + sizeOf(tensor), 0) };
    await writeJson(indexPath, { metadata, weight_map: weightMap });
  }
  await removeShards(folder, new Set(Object.values(weightMap)));
}

/** Removes shards of an earlier save: some readers load every file with such a name. */
async function removeShards(folder: string, kept: ReadonlySet<string>): Promise<void> {
  for (const name of await readdir(folder)) {
    if (/^model-\d{5}-of-\d{5}\.safetensors$/.test(name) && !kept.has(name)) await rm(join(folder, name));
  }
}

const numbered = (i: number) => String(i).padStart(5, '0');
const sizeOf = ({ dtype, shape }: TensorToWrite) => shape.reduce((product, size) => product * size, dtypeBytes[dtype]);

/** The parameters in order, and a tied head if the model's file had one. */
function storedTensors(model: Decoder, dtype?: Dtype | 'float16'): TensorToWrite[] {
  const asked = dtype === 'float16' ? 'F16' : dtype && fileDtypes[dtype];
  if (dtype && !asked)
    throw new TypeError(`saveModel: dtype must be float32, bfloat16, float16 or float64, got ${dtype}`);
  const stored = model.origin?.stored;
  const named = new Map(model.namedParameters());
  if (stored?.has('lm_head.weight') && !named.has('lm_head.weight')) {
    named.set('lm_head.weight', named.get('model.embed_tokens.weight')!);
  }
  const onLost = warnOnce('saveModel');
  const constants = [...model.constants()].map(([constantName, { value }]): TensorToWrite => {
    const { name = constantName, dtype: was } = stored?.get(constantName) ?? {};
    const to = asked ?? was ?? fileDtypes[model.dtype]!;
    return { name, dtype: to, shape: [1], data: () => toFile(Float64Array.of(value), 'float64', to) };
  });
  const parameters = [...named].map(([parameterName, parameter]) => {
    const { name = parameterName, dtype: was } = stored?.get(parameterName) ?? {};
    const to = asked ?? was ?? fileDtypes[parameter.dtype]!;
    return { name, dtype: to, shape: parameter.shape, data: () => elementsOf(parameter, to, onLost) };
  });
  if (model.config.isTextPart && !model.origin) {
    throw new Error(
      'saveModel: config.json is of a larger model, whose other weights are not here; load the model from its folder',
    );
  }
  return [...parameters, ...constants, ...(model.origin?.carried ?? [])];
}

function shardsOf(tensors: readonly TensorToWrite[], maxBytes: number): TensorToWrite[][] {
  const shards: TensorToWrite[][] = [[]];
  let bytes = 0;
  for (const tensor of tensors) {
    if (bytes > 0 && bytes + sizeOf(tensor) > maxBytes) {
      shards.push([]);
      bytes = 0;
    }
    shards.at(-1)!.push(tensor);
    bytes += sizeOf(tensor);
  }
  return shards;
}

/** The model's config with the dtype of the saved weights, in the spelling that the config already uses. */
function configOf(model: Decoder, tensors: readonly TensorToWrite[]): HuggingFaceConfig {
  const { source } = model.config;
  const names: Partial<Record<SafetensorsDtype, string>> = {
    F64: 'float64',
    F32: 'float32',
    F16: 'float16',
    BF16: 'bfloat16',
  };
  const key = 'torch_dtype' in source ? 'torch_dtype' : 'dtype';
  return { architectures: [familyOf(source).architecture], ...source, [key]: names[tensors[0]!.dtype] };
}
