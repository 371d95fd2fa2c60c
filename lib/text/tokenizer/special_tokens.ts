// The tokens around a text, found like transformers finds them.
import { join } from 'node:path';
import { parseModelJson } from '../../io/json.ts';
import { readIfThere } from '../../io/read.ts';
import type { TokenizerConfig } from '../chat_template.ts';
import { contentOf } from '../chat_template.ts';
import { fieldsOf } from './fields.ts';
import type { Surround } from './post_processor.ts';

/** The files beside a tokenizer.json that are read. */
export const CONFIG_FILES = [
  'tokenizer_config.json',
  'special_tokens_map.json',
  'config.json',
  'generation_config.json',
] as const;
type Configs = Record<(typeof CONFIG_FILES)[number], Json>;

interface Json extends Record<string, unknown> {
  tokenizer_class?: unknown;
}

/** What is known about the tokenizer.json. */
export interface Facts {
  path: string;
  surround: Surround;
  hasPostProcessor: boolean;
  /** Undefined if there is no such token. */
  idOf: (token: string) => number | undefined;
  isId: (id: number) => boolean;
  /** The contents of the added tokens. */
  added: readonly string[];
}

export interface SpecialTokens {
  endOfText: number | null;
  beginOfText: readonly number[];
  /** tokenizer_config.json with the special tokens that apply. */
  config: TokenizerConfig;
  /** Warnings for the user. */
  notes: string[];
}

/** The defaults of transformers' classes for tokens that the files do not name. */
const CLASS_DEFAULTS: Record<string, { bos_token?: string; eos_token: string }> = {
  LlamaTokenizer: { bos_token: '<s>', eos_token: '</s>' },
  CodeLlamaTokenizer: { bos_token: '<s>', eos_token: '</s>' },
  GemmaTokenizer: { bos_token: '<bos>', eos_token: '<eos>' },
  CohereTokenizer: { bos_token: '<BOS_TOKEN>', eos_token: '<|END_OF_TURN_TOKEN|>' },
  GPT2Tokenizer: { bos_token: '<|endoftext|>', eos_token: '<|endoftext|>' },
  GPTNeoXTokenizer: { bos_token: '<|endoftext|>', eos_token: '<|endoftext|>' },
  Qwen2Tokenizer: { eos_token: '<|endoftext|>' },
};
/** The classes that in transformers 4 put tokens around a text by add_bos_token (true if absent) and add_eos_token. */
const FOLLOWS_FLAGS = ['LlamaTokenizer', 'CodeLlamaTokenizer', 'GemmaTokenizer', 'CohereTokenizer'];
const CLASS_OF_MODEL: Record<string, string> = {
  llama: 'LlamaTokenizer',
  gemma: 'GemmaTokenizer',
  cohere: 'CohereTokenizer',
};
/** Tokens that end a document, for a tokenizer.json with no other files. */
const END_NAMES = ['<|endoftext|>', '<|end_of_text|>', '</s>', '<eos>'];

export async function readConfigs(folder: string): Promise<Configs> {
  const read = async (name: string): Promise<Json> => {
    const path = join(folder, name);
    const text = await readIfThere(path);
    if (text === null) return {};
    try {
      return fieldsOf(parseModelJson(text), 'it') as Json;
    } catch (error) {
      throw new Error(`${path}: cannot be read as a JSON object: ${(error as Error).message}`, { cause: error });
    }
  };
  const all = await Promise.all(CONFIG_FILES.map(read));
  return Object.fromEntries(CONFIG_FILES.map((name, i) => [name, all[i]!])) as Configs;
}

/** Throws if a file names a token that the vocabulary does not have. */
export function findSpecialTokens(configs: Configs, folder: string, facts: Facts): SpecialTokens {
  const config = configs['tokenizer_config.json'];
  const tokenizerClass = classOf(configs);
  /** A token and the file that names it. */
  const named = (role: 'bos_token' | 'eos_token'): { token: string; file: string } | null => {
    const sources = ['tokenizer_config.json', 'special_tokens_map.json'] as const;
    // special_tokens_map.json comes first, unless tokenizer_config.json also lists the added tokens.
    for (const file of 'added_tokens_decoder' in config ? sources : sources.toReversed()) {
      const token = contentOf(configs[file][role] as string | { content: string } | null | undefined);
      if (token !== '') return { token, file: join(folder, file) };
    }
    return null;
  };
  const idOf = (role: 'bos_token' | 'eos_token'): number | null => {
    const given = named(role);
    const fallback = CLASS_DEFAULTS[tokenizerClass]?.[role];
    if (!given) return fallback === undefined ? null : (facts.idOf(fallback) ?? null);
    const id = facts.idOf(given.token);
    if (id === undefined) {
      throw new Error(
        `${given.file}: ${role} ${JSON.stringify(given.token)} is not in the vocabulary of ${facts.path}`,
      );
    }
    return id;
  };
  const tokenOf = (role: 'bos_token' | 'eos_token'): string | null => {
    const fallback = CLASS_DEFAULTS[tokenizerClass]?.[role] ?? '';
    return named(role)?.token ?? (facts.idOf(fallback) === undefined ? null : fallback);
  };
  const map = configs['special_tokens_map.json'];
  const inForce = 'added_tokens_decoder' in config ? { ...map, ...config } : { ...config, ...map };
  const notes: string[] = [];
  const isAlone = CONFIG_FILES.every((name) => Object.keys(configs[name]).length === 0);
  const guess = isAlone ? facts.added.find((content) => END_NAMES.includes(content)) : undefined;
  return {
    endOfText: idOf('eos_token') ?? idOfConfigs(configs, facts) ?? (guess === undefined ? null : facts.idOf(guess)!),
    beginOfText: beginOfText(config, tokenizerClass, facts, () => idOf('bos_token'), notes),
    config: { ...inForce, bos_token: tokenOf('bos_token'), eos_token: tokenOf('eos_token') },
    notes,
  };
}

function classOf(configs: Configs): string {
  const { tokenizer_class: own } = configs['tokenizer_config.json'];
  const { tokenizer_class: models, model_type: type } = configs['config.json'];
  const name = [own, models].find((one) => typeof one === 'string') ?? CLASS_OF_MODEL[String(type)] ?? '';
  return String(name).replace(/Fast$/, '');
}

/** eos_token_id of the model; of several the first that the tokenizer has. */
function idOfConfigs(configs: Configs, { isId }: Facts): number | null {
  const ids = [configs['config.json'], configs['generation_config.json']].flatMap(({ eos_token_id: id }) =>
    [id].flat(),
  );
  return (ids.find((id) => typeof id === 'number' && isId(id)) as number | undefined) ?? null;
}

function beginOfText(
  config: Json,
  tokenizerClass: string,
  facts: Facts,
  bos: () => number | null,
  notes: string[],
): readonly number[] {
  const { add_bos_token: flag } = config;
  const { surround, path, hasPostProcessor } = facts;
  const isFollowed = FOLLOWS_FLAGS.includes(tokenizerClass);
  if (typeof flag !== 'boolean') {
    if (!isFollowed || hasPostProcessor) return surround.begin;
    const id = bos();
    if (id === null) return [];
    notes.push(
      `${path} has no post_processor: texts begin with bos_token, like those of ${tokenizerClass}; add_bos_token: false in tokenizer_config.json turns this off`,
    );
    return [id];
  }
  if (!isFollowed) {
    if (flag !== surround.begin.length > 0) {
      notes.push(
        `add_bos_token: ${flag} in tokenizer_config.json is ignored: ${config.tokenizer_class ?? 'a tokenizer without a class'} uses the post_processor of ${path}`,
      );
    }
    return surround.begin;
  }
  if (!flag) return [];
  const id = bos();
  if (id === null)
    throw new Error(`${path}: add_bos_token is true in tokenizer_config.json, but there is no bos_token`);
  return [id];
}
