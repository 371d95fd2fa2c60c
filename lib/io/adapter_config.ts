// Reads and writes PEFT's adapter_config.json. Every field is read, known to change no number, or refused by name.
import { join } from 'node:path';
import { brief, briefName } from '../brief.ts';
import type { LoraLayout } from '../models/adapter.ts';
import { Fields, type HuggingFaceConfig } from '../models/fields.ts';
import { type TargetFields, untargeted, valuesByPattern } from './adapter_patterns.ts';
import { readJsonObject } from './json_object.ts';

export const ADAPTER_CONFIG = 'adapter_config.json';

/** What adapter_config.json says about adapters whose tensors are known. */
export interface AdapterConfig {
  path: string;
  dropout: number;
  useRslora: boolean;
  /** Whether the adapter of a tied head also applies to the embedding. */
  tiesHead: boolean;
  /** alpha and the rank that scales it, for each module. Throws if the fields do not select a module. */
  layoutOf(modules: string[]): Map<string, { rank: number; alpha: number }>;
}

/**
 * Fields that change nothing once the tensors are known: origin, initialisation and training of an adapter, and settings of features that
 * other fields turn on. (As of PEFT 0.20.)
 */
const INERT = new Set(
  `auto_mapping base_model_name_or_path corda_config eva_config inference_mode lora_ga_config loftq_config megatron_core merge_weights
  peft_version qalora_group_size revision runtime_config task_type velora_config`.split(/\s+/),
);

/** Initialisations that leave the base model unchanged. Others (PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA) subtract from its weights. */
const PLAIN_INITIALIZATIONS = [true, false, 'gaussian', 'orthogonal', 'eva', 'mica'];

const READ = new Set(
  `alpha_pattern bias ensure_weight_tying exclude_modules fan_in_fan_out init_lora_weights layers_pattern layers_to_transform lora_alpha
  lora_dropout peft_type r rank_pattern target_modules use_rslora`.split(/\s+/),
);

/**
 * Reads adapter_config.json. Throws a RangeError that names an unsupported field.
 * @param ignoreFields fields to ignore
 */
export async function readAdapterConfig(folder: string, ignoreFields: readonly string[] = []): Promise<AdapterConfig> {
  const path = join(folder, ADAPTER_CONFIG);
  const source = await readJsonObject(path);
  if (!source) {
    throw new Error(
      `${folder}: has no ${ADAPTER_CONFIG}; an adapter's folder needs it beside adapter_model.safetensors`,
    );
  }
  const fields = new Fields(source, path, ignoreFields);
  fields.only('peft_type', 'LORA');
  fields.only('bias', 'none');
  fields.only('fan_in_fan_out', false);
  checkInitialization(fields);
  refuseUnknown(path, source, fields.ignored);
  for (const name of ['r', 'lora_alpha', 'lora_dropout']) {
    if (fields.isNull(name)) fields.fail(name, null, 'a number, or absent'); // PEFT would compute with null
  }
  const rank = fields.count('r', 8);
  const alpha = fields.number('lora_alpha', 8);
  const ranks = pattern(fields, 'rank_pattern', (value) => Number.isInteger(value) && value > 0);
  const alphas = pattern(fields, 'alpha_pattern', Number.isFinite);
  const targets: TargetFields = {
    targets: names(fields, 'target_modules'),
    excluded: names(fields, 'exclude_modules'),
    layers: layers(fields),
    layersPatterns: [names(fields, 'layers_pattern') ?? []].flat(),
  };
  return {
    path,
    dropout: fields.number('lora_dropout', 0),
    useRslora: fields.boolean('use_rslora', false),
    tiesHead: fields.boolean('ensure_weight_tying', false),
    layoutOf(modules) {
      const [other] = notChosen(targets, modules);
      if (other) {
        throw new RangeError(
          `${path}: target_modules and related fields do not select '${other}', but the file has an adapter of it`,
        );
      }
      const rankOf = inField(path, 'rank_pattern', () => valuesByPattern(ranks, modules, rank));
      const alphaOf = inField(path, 'alpha_pattern', () => valuesByPattern(alphas, modules, alpha));
      return new Map(modules.map((name) => [name, { rank: rankOf.get(name)!, alpha: alphaOf.get(name)! }]));
    },
  };
}

function checkInitialization(fields: Fields): void {
  const value = fields.get('init_lora_weights') ?? true;
  const isPlain = PLAIN_INITIALIZATIONS.includes(typeof value === 'string' ? value.toLowerCase() : (value as boolean));
  if (isPlain) return;
  fields.fail(
    'init_lora_weights',
    value,
    `one of ${PLAIN_INITIALIZATIONS.join(', ')}: others change the base model; save the adapter as plain LoRA with PEFT's path_initial_model_for_weight_conversion`,
  );
}

/** An unknown field counts as absent if it is null, false or empty. */
function refuseUnknown(path: string, source: HuggingFaceConfig, ignored: ReadonlySet<string>): void {
  for (const [name, value] of Object.entries(source)) {
    const isEmpty = value === '' || (typeof value === 'object' && value !== null && Object.keys(value).length === 0);
    if (READ.has(name) || INERT.has(name) || ignored.has(name) || value === null || value === false || isEmpty)
      continue;
    throw new RangeError(
      `${path}: ${briefName(name)} (${brief(value)}) is not supported: it may change what the adapter computes; if you know that it does not, ignore it with ignoreFields: ['${briefName(name)}']`,
    );
  }
}

function pattern(fields: Fields, name: string, isValid: (value: number) => boolean): Record<string, number> {
  const value = fields.get(name) ?? {};
  const isMap = typeof value === 'object' && !Array.isArray(value);
  if (!isMap || !Object.values(value).every((one) => typeof one === 'number' && isValid(one))) {
    fields.fail(name, value, 'an object of numbers by name');
  }
  return value as Record<string, number>;
}

function names(fields: Fields, name: string): string[] | string | null {
  const value = fields.get(name) ?? null;
  if (Array.isArray(value) && value.every((one) => typeof one === 'string')) return value.length > 0 ? value : null;
  if (value !== null && typeof value !== 'string') fields.fail(name, value, 'a name or a list of names');
  return (value as string | null) || null;
}

function layers(fields: Fields): number[] | null {
  const value = fields.get('layers_to_transform') ?? null;
  const list = [value ?? []].flat();
  if (!list.every(Number.isInteger)) fields.fail('layers_to_transform', value, 'a number or a list of numbers');
  return list.length > 0 ? (list as number[]) : null;
}

/** Modules that the fields do not select. None if they hold an expression that only Python can read: the tensors decide anyway. */
function notChosen(targets: TargetFields, modules: string[]): string[] {
  try {
    return untargeted(targets, modules);
  } catch (error) {
    if (error instanceof RangeError) return [];
    throw error;
  }
}

function inField<T>(path: string, name: string, fn: () => T): T {
  try {
    return fn();
  } catch (error) {
    throw new RangeError(`${path}: ${name}: ${(error as Error).message}`, { cause: error });
  }
}

/** The config from which PEFT 0.8 and newer read the adapters. */
export function toAdapterConfig(
  { adapters, dropout, useRslora }: LoraLayout,
  projections: readonly string[] | null,
  base: string | null,
): HuggingFaceConfig {
  const [{ rank, alpha }] = adapters as [LoraLayout['adapters'][number]];
  const others = (key: 'rank' | 'alpha', common: number) =>
    Object.fromEntries(adapters.filter((one) => one[key] !== common).map((one) => [one.path, one[key]]));
  return {
    peft_type: 'LORA',
    task_type: 'CAUSAL_LM',
    base_model_name_or_path: base,
    r: rank,
    lora_alpha: alpha,
    lora_dropout: dropout,
    rank_pattern: others('rank', rank),
    alpha_pattern: others('alpha', alpha),
    target_modules: targetModules(
      adapters.map(({ path }) => path),
      projections,
    ),
    use_rslora: useRslora,
    init_lora_weights: true,
    modules_to_save: null,
    bias: 'none',
    fan_in_fan_out: false,
    inference_mode: true,
  };
}

/** The last parts of the paths if they are unambiguous, else the whole paths. */
function targetModules(paths: readonly string[], projections: readonly string[] | null): string[] {
  if (!projections) return [...paths];
  const last = (path: string) => path.slice(path.lastIndexOf('.') + 1);
  const ends = new Set(paths.map(last));
  return projections.filter((path) => ends.has(last(path))).length === paths.length ? [...ends] : [...paths];
}
