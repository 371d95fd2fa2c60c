// Reads defaults of generation from generation_config.json, as transformers' generate does.
import { join } from 'node:path';
import { brief } from '../brief.ts';
import { readJsonObject } from '../io/json_object.ts';
import type { SamplingOptions } from './sample.ts';

const FILE = 'generation_config.json';

/** Defaults for options that the caller leaves out. */
export interface GenerationDefaults {
  sampling: SamplingOptions;
  /** Ids that end a text; null: not in the file, so those of config.json apply. */
  stopIds: number[] | null;
  /** Strings that end a text. */
  stop: string[];
}

/** Unsupported fields that change the generated text, with the values at which they have no effect. */
const UNSUPPORTED: Record<string, readonly unknown[]> = {
  bad_words_ids: [],
  begin_suppress_tokens: [],
  constraints: [],
  diversity_penalty: [0],
  dola_layers: [],
  encoder_no_repeat_ngram_size: [0],
  encoder_repetition_penalty: [1],
  epsilon_cutoff: [0],
  eta_cutoff: [0],
  exponential_decay_length_penalty: [],
  force_words_ids: [],
  forced_bos_token_id: [],
  forced_eos_token_id: [],
  frequency_penalty: [0],
  guidance_scale: [1],
  min_length: [0],
  min_new_tokens: [0],
  no_repeat_ngram_size: [0],
  num_beams: [1],
  penalty_alpha: [0],
  presence_penalty: [0],
  sequence_bias: [],
  suppress_tokens: [],
  token_healing: [],
  top_h: [],
  typical_p: [1],
  watermarking_config: [],
};

const warned = new Set<string>();

/**
 * Reads a folder's generation_config.json. Without a folder or file, there are no defaults. Warns once for each file about unsupported
 * fields that would change the text.
 * @throws RangeError that names the file and the field for a value that makes no sense
 */
export async function readGenerationConfig(folder: string | null): Promise<GenerationDefaults> {
  const path = folder === null ? null : join(folder, FILE);
  const source = path === null ? null : await readJsonObject(path);
  if (path === null || source === null) return { sampling: {}, stopIds: null, stop: [] };
  warnOfUnsupported(path, source);
  const number = (name: string, isValid: (value: number) => boolean, required: string) => {
    const value = source[name] ?? undefined;
    if (value === undefined || (typeof value === 'number' && isValid(value))) return value as number | undefined;
    return fail(path, name, value, required);
  };
  const isShare = (value: number) => value > 0 && value <= 1;
  const isGreedy = source.do_sample === false;
  const sampling: SamplingOptions = {
    temperature: isGreedy ? 0 : number('temperature', (value) => value >= 0, 'a number of 0 or more'),
    topK: number('top_k', (value) => Number.isInteger(value) && value >= 0, 'an integer of 0 or more'),
    topP: number('top_p', isShare, 'a number above 0, up to 1'),
    minP: number('min_p', (value) => value >= 0 && value <= 1, 'a number from 0 to 1'),
    repetitionPenalty: number('repetition_penalty', (value) => value > 0, 'a positive number'),
  };
  return { sampling, stopIds: stopIds(path, source), stop: stopStrings(path, source) };
}

function stopIds(path: string, source: Record<string, unknown>): number[] | null {
  const value = source.eos_token_id ?? null;
  const ids = [value].flat();
  if (value === null) return null;
  return ids.every(Number.isInteger) ? (ids as number[]) : fail(path, 'eos_token_id', value, 'an id or a list of ids');
}

function stopStrings(path: string, source: Record<string, unknown>): string[] {
  const value = source.stop_strings ?? [];
  const texts = [value].flat();
  return texts.every((text) => typeof text === 'string')
    ? texts
    : fail(path, 'stop_strings', value, 'a text or a list of texts');
}

function warnOfUnsupported(path: string, source: Record<string, unknown>): void {
  const names = Object.entries(UNSUPPORTED).flatMap(([name, neutral]) => {
    const value = source[name] ?? null;
    const isEmpty = value === null || value === false || (typeof value === 'object' && Object.keys(value).length === 0);
    return isEmpty || neutral.includes(value) ? [] : [`${name} (${brief(value)})`];
  });
  if (names.length === 0 || warned.has(path)) return;
  warned.add(path);
  process.emitWarning(`${path}: ignored, since they are not supported: ${names.join(', ')}`, {
    code: 'MINISEQUENCE_GENERATION',
  });
}

function fail(path: string, name: string, value: unknown, required: string): never {
  throw new RangeError(`${path}: ${name} must be ${required}, got ${brief(value)}`);
}
