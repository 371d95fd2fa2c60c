// Reads and writes LoRA adapters in PEFT's layout: adapter_model.safetensors and adapter_config.json. The tensors' names and shapes
// determine which modules have adapters, and their ranks; the configuration determines the factor.
import { existsSync } from 'node:fs';
import { realpath } from 'node:fs/promises';
import { join } from 'node:path';
import type { Parameter } from '../autograd/parameter.ts';
import { brief } from '../brief.ts';
import type { Lora, LoraLayout } from '../models/adapter.ts';
import { Decoder } from '../models/decoder.ts';
import type { DecoderConfig, Quantization } from '../models/decoder_config.ts';
import { addLora, removeLora } from '../models/lora.ts';
import { openDevice } from '../runtime/device.ts';
import type { Dtype } from '../runtime/dtype.ts';
import { ADAPTER_CONFIG, type AdapterConfig, readAdapterConfig, toAdapterConfig } from './adapter_config.ts';
import { PREFIX, parseTensorName, peftName } from './adapter_names.ts';
import { fileDtypes, fromFile, holds } from './elements.ts';
import { writeJson } from './json.ts';
import { makeFolder } from './make_folder.ts';
import { INDEX_FILE, WEIGHTS_FILE } from './model_folder.ts';
import { SafetensorsError, SafetensorsFile, writeSafetensors } from './safetensors.ts';
import { requireSameWeight } from './saved_weight.ts';
import { StoredTensor } from './stored_tensor.ts';
import { elementsOf, warnOnce } from './unrounded.ts';
import { removeLeftovers } from './whole_file.ts';

const ADAPTER_WEIGHTS = 'adapter_model.safetensors';

/** Metadata of an adapter's file, which PEFT passes over: how the projections were stored that it was trained on, and the model's dtype. */
const BASE = { quantization: 'base_quantization', dtype: 'base_dtype' };

/** The model that an adapter was trained on, where its projections were in 4 bits. */
export interface QuantizedBase {
  quantization: Quantization;
  dtype: 'float32' | 'bfloat16';
}

/**
 * Writes the model's adapters, each file atomically. Refuses a folder that holds a model other than the adapters' own, since readers would
 * use it as the adapters' model. The file's metadata say where the model's projections were in 4 bits.
 * @param options.dtype of the file. @default the model's, or the dtype that an adapter was loaded from if it is wider
 */
export async function saveAdapter(model: Decoder, folder: string, options: { dtype?: Dtype } = {}): Promise<void> {
  const lora = requireLora('saveAdapter', model);
  await makeFolder(folder, 'saveAdapter');
  const other = [WEIGHTS_FILE, INDEX_FILE].find((name) => existsSync(join(folder, name)));
  const own = model.origin ? await realpath(model.origin.folder).catch(() => null) : null;
  if (other && (await realpath(folder)) !== own)
    throw new Error(
      `saveAdapter: ${folder}: holds ${other}, which readers would take for the adapter's model; choose another folder`,
    );
  await removeLeftovers(folder);
  const onLost = warnOnce('saveAdapter');
  const { quantization, isTextPart } = model.config;
  const tensors = [...lora.adapters.values()].flatMap(({ path, a, b }) => [
    { name: `${PREFIX}${peftName(path, isTextPart)}.lora_A.weight`, tensor: a },
    { name: `${PREFIX}${peftName(path, isTextPart)}.lora_B.weight`, tensor: b },
  ]);
  await writeSafetensors(
    join(folder, ADAPTER_WEIGHTS),
    tensors.map(({ name, tensor }) => {
      const { stored } = tensor;
      const dtype =
        !options.dtype && stored instanceof StoredTensor ? stored.dtype : fileDtypes[options.dtype ?? model.dtype];
      return { name, dtype, shape: tensor.shape, data: () => elementsOf(tensor, dtype, onLost) };
    }),
    quantization ? { [BASE.quantization]: quantization, [BASE.dtype]: model.dtype } : {},
  );
  // Names of the text part alone may be of other parts of a larger model too.
  const projections = isTextPart ? null : [...model.projections()].map(([path]) => path);
  const adapters = lora.layout.adapters.map((each) => ({ ...each, path: peftName(each.path, isTextPart) }));
  await writeJson(
    join(folder, ADAPTER_CONFIG),
    toAdapterConfig({ ...lora.layout, adapters }, projections, model.origin?.folder ?? null),
  );
}

/** What the file says of the model that it was trained on; null if its projections were not in 4 bits, or another tool wrote the file. */
export async function quantizedBaseOf(folder: string): Promise<QuantizedBase | null> {
  const file = await openWeights(folder);
  await file.close();
  const [quantization, dtype] = [BASE.quantization, BASE.dtype].map((key) => file.metadata.get(key));
  if (quantization === undefined) return null;
  if (quantization === 'nf4' && (dtype === 'float32' || dtype === 'bfloat16')) return { quantization, dtype };
  throw new SafetensorsError(
    `${file.path}: metadata ${BASE.quantization} must be 'nf4' with ${BASE.dtype} float32 or bfloat16, got ${brief(quantization)} and ${brief(dtype)}`,
  );
}

/**
 * Adds the adapters of a folder, written by PEFT or a tool that uses it, to a model. Weights saved with the adapters must equal the
 * model's.
 * @param options.dtype of the adapters. f32 adapters can only be merged; the merge then rounds only the final sum. @default the model's
 * @param options.ignoreFields fields of adapter_config.json to ignore, at the user's risk: they might change the numbers
 * @throws RangeError that names an unsupported field of adapter_config.json
 * @throws SafetensorsError that names a missing tensor, or one that the model has no place for
 */
export async function loadAdapter(
  model: Decoder,
  folder: string,
  options: { ignoreFields?: readonly string[]; dtype?: Dtype } = {},
): Promise<Lora> {
  if (model.lora) throw new Error('loadAdapter: the model already has adapters');
  const config = await readAdapterConfig(folder, options.ignoreFields);
  const file = await openWeights(folder);
  let isKept = false;
  try {
    const found = await findAdapters(model, file);
    const lora = addLora(model, layoutOf(model, found, config, file), options.dtype);
    try {
      await fill(lora, found, file);
    } catch (error) {
      removeLora(model);
      throw error;
    }
    isKept = rememberStored(lora, found, file);
    return lora;
  } finally {
    if (!isKept) await file.close();
  }
}

/**
 * Where a folder's adapters are in a model of this configuration, and their ranks and factors; of the files' values it reads none.
 * @throws as loadAdapter, but for values that differ from the model's
 */
export async function adapterLayout(
  config: DecoderConfig,
  folder: string,
  { ignoreFields }: { ignoreFields?: readonly string[] } = {},
): Promise<LoraLayout> {
  const adapterConfig = await readAdapterConfig(folder, ignoreFields);
  const file = await openWeights(folder);
  try {
    using device = openDevice('meta');
    using model = new Decoder(config, { device });
    return layoutOf(model, await findAdapters(model, file), adapterConfig, file);
  } finally {
    await file.close();
  }
}

/** Overwrites the values of a model's adapters with a folder's, which must have the same adapters, ranks, factors and dropout. */
export async function readAdapter(model: Decoder, folder: string): Promise<void> {
  const lora = requireLora('readAdapter', model);
  const config = await readAdapterConfig(folder);
  const file = await openWeights(folder);
  try {
    const found = await findAdapters(model, file);
    requireSameLayout(folder, layoutOf(model, found, config, file), lora.layout);
    await fill(lora, found, file);
  } finally {
    await file.close();
  }
}

function requireSameLayout(folder: string, theirs: LoraLayout, own: LoraLayout): void {
  const facts = ({ adapters, useRslora, dropout }: LoraLayout) => [
    ...adapters.map(({ path, rank, alpha }) => `'${path}' has rank ${rank} and alpha ${alpha}`),
    `use_rslora is ${useRslora}`,
    `dropout is ${dropout}`,
  ];
  const [has, hasOwn] = [new Set(facts(theirs)), new Set(facts(own))];
  const [other] = [...has].filter((fact) => !hasOwn.has(fact));
  const [missing] = [...hasOwn].filter((fact) => !has.has(fact));
  if (other === undefined && missing === undefined) return;
  throw new RangeError(
    `${folder}: its adapters differ from the model's: there ${other ?? 'nothing more'}, here ${missing ?? 'nothing more'}`,
  );
}

/** The names of one adapter's tensors, and its module's name in PEFT's model. */
interface FoundAdapter {
  module: string;
  lora_A: string;
  lora_B: string;
}

/** The file's adapters by path. Every other tensor must equal the model's weight of that name; all shapes must fit. */
async function findAdapters(model: Decoder, file: SafetensorsFile): Promise<Map<string, FoundAdapter>> {
  const places = {
    projections: new Map(model.projections()),
    parameters: model.namedParameters(),
    isTextPart: model.config.isTextPart,
  };
  const parts = new Map<string, Partial<FoundAdapter> & { module: string }>();
  for (const name of file.entries.keys()) {
    const parsed = parseTensorName(name, places);
    if (!parsed) throw new SafetensorsError(`${file.path}: the model has no place for '${name}'`);
    if (parsed.part === 'weight') {
      // on `meta` there are no values to compare
      if (model.device.id !== null)
        await requireSameWeight(file, name, parsed.name, places.parameters.get(parsed.name) ?? model.head);
      continue;
    }
    const { path, part, module } = parsed;
    const adapter = parts.get(path) ?? { module };
    if (adapter[part])
      throw new SafetensorsError(`${file.path}: '${adapter[part]}' and '${name}' belong to the same adapter`);
    parts.set(path, { ...adapter, [part]: name });
  }
  for (const [path, { lora_A: a, lora_B: b }] of parts) {
    if (!a || !b)
      throw new SafetensorsError(`${file.path}: has '${a ?? b}' without the adapter's ${a ? 'lora_B' : 'lora_A'}`);
    const [O, I] = places.projections.get(path)!.shape as [number, number];
    const [r] = file.entries.get(a)!.shape;
    requireShape(file, a, r ? [r, I] : ['r', I]);
    requireShape(file, b, [O, r!]);
  }
  if (parts.size === 0) throw new SafetensorsError(`${file.path}: has no adapters`);
  return parts as Map<string, FoundAdapter>;
}

function requireShape(file: SafetensorsFile, name: string, expected: (number | string)[]): void {
  const { shape } = file.entries.get(name)!;
  if (shape.join() === expected.join()) return;
  throw new SafetensorsError(`${file.path}: '${name}' is (${shape}), but the model's projection needs (${expected})`);
}

function layoutOf(
  model: Decoder,
  found: ReadonlyMap<string, FoundAdapter>,
  config: AdapterConfig,
  file: SafetensorsFile,
): LoraLayout {
  const { dropout, useRslora } = config;
  if (config.tiesHead && found.has('lm_head') && model.config.tieWordEmbeddings) {
    throw new RangeError(`${config.path}: ensure_weight_tying must be false if lm_head has an adapter, got true`);
  }
  const factors = config.layoutOf([...found.values()].map(({ module }) => module));
  const adapters = [...model.projections()].flatMap(([path]) => {
    const adapter = found.get(path);
    if (!adapter) return [];
    const { rank, alpha } = factors.get(adapter.module)!;
    const [r] = file.entries.get(adapter.lora_A)!.shape;
    if (r === rank) return [{ path, rank, alpha }];
    throw new RangeError(
      `${config.path}: r and rank_pattern give '${path}' rank ${rank}, but '${adapter.lora_A}' has ${r}`,
    );
  });
  return { adapters, dropout, useRslora, seed: 0 };
}

/** The adapters' parameters with their names in the file. */
function* parametersOf(
  lora: Lora,
  found: ReadonlyMap<string, FoundAdapter>,
): Generator<[name: string, parameter: Parameter]> {
  for (const { path, a, b } of lora.adapters.values()) {
    const names = found.get(path)!;
    yield [names.lora_A, a];
    yield [names.lora_B, b];
  }
}

async function fill(lora: Lora, found: ReadonlyMap<string, FoundAdapter>, file: SafetensorsFile): Promise<void> {
  for (const [name, parameter] of parametersOf(lora, found)) {
    parameter.write(fromFile(name, await file.read(name), file.entries.get(name)!.dtype, parameter.dtype));
  }
}

/** Gives adapters that were rounded access to the file's values. Returns whether the file must stay open for that. */
function rememberStored(lora: Lora, found: ReadonlyMap<string, FoundAdapter>, file: SafetensorsFile): boolean {
  let isKept = false;
  for (const [name, parameter] of parametersOf(lora, found)) {
    if (holds(parameter.dtype, file.entries.get(name)!.dtype)) continue;
    parameter.stored = new StoredTensor(file, name);
    isKept = true;
  }
  if (isKept) lora.close = () => file.close().catch(() => {});
  return isKept;
}

async function openWeights(folder: string): Promise<SafetensorsFile> {
  const path = join(folder, ADAPTER_WEIGHTS);
  if (!existsSync(path) && existsSync(join(folder, 'adapter_model.bin'))) {
    throw new SafetensorsError(
      `${folder}: has no ${ADAPTER_WEIGHTS}, only adapter_model.bin, which may contain code and is not read; load it with PEFT and save it with save_pretrained(folder, safe_serialization=True)`,
    );
  }
  if (!existsSync(path)) throw new SafetensorsError(`${folder}: has no ${ADAPTER_WEIGHTS}`);
  return await SafetensorsFile.open(path);
}

function requireLora(op: string, { lora }: Decoder): Lora {
  if (!lora) throw new Error(`${op}: the model has no adapters`);
  return lora;
}
