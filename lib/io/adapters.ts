// LoRA adapters in and out, in PEFT's layout: adapter_model.safetensors and adapter_config.json.
import { mkdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Dtype } from '../dtype.ts';
import type { Decoder } from '../models/decoder.ts';
import { Fields, type HuggingFaceConfig } from '../models/fields.ts';
import { addLora, LORA_MODULES, type Lora, type LoraModule, type LoraOptions } from '../models/lora.ts';
import { fileDtypes, fromFile, toFile } from './elements.ts';
import { writeJson } from './json.ts';
import { SafetensorsError, SafetensorsFile, writeSafetensors } from './safetensors.ts';

const WEIGHTS = 'adapter_model.safetensors';
const CONFIG = 'adapter_config.json';
/** What PEFT puts before a module's own name. */
const PREFIX = 'base_model.model.';

/**
 * Writes the model's adapters, each file whole or not at all.
 * @param options.dtype of the file. @default the model's
 */
export async function saveAdapter(model: Decoder, folder: string, options: { dtype?: Dtype } = {}): Promise<void> {
  const lora = requireLora('saveAdapter', model);
  await mkdir(folder, { recursive: true });
  const dtype = fileDtypes[options.dtype ?? model.dtype];
  const tensors = [...lora.adapters.values()].flatMap(({ path, a, b }) => [
    { name: `${PREFIX}${path}.lora_A.weight`, tensor: a },
    { name: `${PREFIX}${path}.lora_B.weight`, tensor: b },
  ]);
  await writeSafetensors(
    join(folder, WEIGHTS),
    tensors.map(({ name, tensor }) => ({
      name,
      dtype,
      shape: tensor.shape,
      data: async () => toFile(await tensor.data(), tensor.dtype, dtype),
    })),
  );
  await writeJson(join(folder, CONFIG), toPeft(lora, model.origin?.folder ?? null));
}

function toPeft({ options }: Lora, base: string | null): HuggingFaceConfig {
  return {
    peft_type: 'LORA',
    task_type: 'CAUSAL_LM',
    base_model_name_or_path: base,
    r: options.rank,
    lora_alpha: options.alpha,
    lora_dropout: options.dropout,
    target_modules: [...options.modules],
    use_rslora: options.useRslora,
    bias: 'none',
    fan_in_fan_out: false,
    inference_mode: true,
  };
}

/** Fields of adapter_config.json that change no number of an adapter that is given. */
const HARMLESS = [
  'auto_mapping',
  'base_model_name_or_path',
  'corda_config',
  'eva_config',
  'inference_mode',
  'init_lora_weights',
  'loftq_config',
  'megatron_core',
  'peft_version',
  'revision',
  'runtime_config',
  'task_type',
];

/** Reads adapter_config.json. Throws a RangeError that names a field which is not supported. */
export async function readAdapterConfig(folder: string): Promise<LoraOptions> {
  const path = join(folder, CONFIG);
  let source: HuggingFaceConfig;
  try {
    source = JSON.parse(await readFile(path, 'utf8')) as HuggingFaceConfig;
  } catch (error) {
    throw new Error(`${path}: cannot be read: ${(error as Error).message}`, { cause: error });
  }
  const fields = new Fields(source, path);
  for (const name of HARMLESS) fields.get(name);
  fields.only('peft_type', 'LORA');
  fields.only('bias', 'none');
  fields.only('lora_bias', false);
  fields.only('fan_in_fan_out', false);
  fields.only('use_dora', false);
  fields.only('use_qalora', false);
  for (const name of [
    'modules_to_save',
    'layers_to_transform',
    'layers_pattern',
    'exclude_modules',
    'layer_replication',
  ]) {
    fields.only(name);
  }
  for (const name of ['rank_pattern', 'alpha_pattern']) {
    const value = fields.get(name);
    if (value !== undefined && Object.keys(value as object).length > 0) fields.fail(name, value, 'empty');
  }
  const targets = fields.get('target_modules');
  const modules = targets === 'all-linear' ? LORA_MODULES.filter((name) => name !== 'lm_head') : targets;
  if (!Array.isArray(modules)) fields.fail('target_modules', targets, 'a list of names');
  const rank = fields.count('r');
  const options = {
    rank,
    alpha: fields.number('lora_alpha', 8),
    dropout: fields.number('lora_dropout', 0),
    modules: modules as LoraModule[],
    useRslora: fields.boolean('use_rslora', false),
  };
  fields.finish();
  return options;
}

/** Gives a model the adapters of a folder. */
export async function loadAdapter(model: Decoder, folder: string): Promise<Lora> {
  const lora = addLora(model, await readAdapterConfig(folder));
  await readAdapter(model, folder);
  return lora;
}

/** Overwrites a model's adapters with those of a folder. Every one must be there, in its shape, and nothing else. */
export async function readAdapter(model: Decoder, folder: string): Promise<void> {
  const lora = requireLora('readAdapter', model);
  const file = await SafetensorsFile.open(join(folder, WEIGHTS));
  try {
    const left = new Set(file.entries.keys());
    for (const { path, a, b } of lora.adapters.values()) {
      for (const [part, tensor] of Object.entries({ lora_A: a, lora_B: b })) {
        const name = `${PREFIX}${path}.${part}.weight`;
        const entry = file.entries.get(name);
        if (!entry) throw new SafetensorsError(`${file.path}: has no tensor '${name}'`);
        if (entry.shape.join() !== tensor.shape.join()) {
          throw new SafetensorsError(`${file.path}: '${name}' is (${entry.shape}), the model's (${tensor.shape})`);
        }
        tensor.write(fromFile(name, await file.read(name), entry.dtype, tensor.dtype));
        left.delete(name);
      }
    }
    const [other] = left;
    if (other) throw new SafetensorsError(`${file.path}: the model has no place for '${other}'`);
  } finally {
    await file.close();
  }
}

function requireLora(op: string, { lora }: Decoder): Lora {
  if (!lora) throw new Error(`${op}: the model has no adapters`);
  return lora;
}
