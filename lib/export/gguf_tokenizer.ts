// A tokenizer.json and a chat template as keys of a GGUF file.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { brief } from '../brief.ts';
import { parseModelJson } from '../io/json.ts';
import { readJsonObject } from '../io/json_object.ts';
import { contentOf, type TokenizerConfig } from '../text/chat_template.ts';
import type { AddedToken } from '../text/tokenizer/added_tokens.ts';
import { BYTE_CHARACTERS } from '../text/tokenizer/byte_level.ts';
import type { Tokenizer } from '../text/tokenizer.ts';
import type { GgufValue } from './gguf_file.ts';
import { preTokenizerOf } from './pre_tokenizers.ts';

/** The format's numbers for kinds of tokens. */
const KINDS = { normal: 1, control: 3, userDefined: 4, unused: 5 } as const;

interface TokenizerJson {
  normalizer?: { type?: unknown } | null;
  pre_tokenizer?: unknown;
  model: {
    type?: unknown;
    vocab: Record<string, number>;
    merges: (string | [string, string])[];
    ignore_merges?: boolean;
    byte_fallback?: boolean;
    unk_token?: string | null;
    continuing_subword_prefix?: string | null;
    end_of_word_suffix?: string | null;
  };
}

/**
 * Keys of the tokenizer of a folder.
 * @param options.vocabSize rows of the embedding; ids without a token get one that no text has
 * @param options.stopIds that end a text
 * @throws RangeError for a tokenizer with which llama.cpp would find other ids, by the field
 */
export async function tokenizerKeys(
  folder: string,
  tokenizer: Tokenizer,
  { vocabSize, stopIds }: { vocabSize: number; stopIds: readonly number[] },
): Promise<Map<string, GgufValue>> {
  const path = join(folder, 'tokenizer.json');
  const json = parseModelJson(await readFile(path, 'utf8')) as TokenizerJson;
  const { model, normalizer } = json;
  requireBytePairs(json);
  if (tokenizer.vocabSize > vocabSize) {
    throw new RangeError(`export: ${path} has ids up to ${tokenizer.vocabSize - 1}, the embedding ${vocabSize} rows`);
  }
  if (normalizer && normalizer.type !== 'NFC') {
    throw new RangeError(`export: ${path}: normalizer ${brief(normalizer)}: llama.cpp does not normalize such texts`);
  }
  const keys = new Map<string, GgufValue>();
  const text = (name: string, value: string) => keys.set(`tokenizer.${name}`, { type: 'string', value });
  text('ggml.model', 'gpt2');
  text('ggml.pre', preTokenizerOf(json.pre_tokenizer, model.ignore_merges ?? false));
  const { tokens, kinds } = tokensOf(model.vocab, tokenizer.addedTokens, vocabSize);
  keys.set('tokenizer.ggml.tokens', { type: 'array', of: 'string', value: tokens });
  keys.set('tokenizer.ggml.token_type', { type: 'array', of: 'int32', value: kinds });
  const merges = model.merges.filter((one) => typeof one !== 'string' || !one.startsWith('#version'));
  const value = merges.map((one) => (typeof one === 'string' ? one : one.join(' ')));
  keys.set('tokenizer.ggml.merges', { type: 'array', of: 'string', value });
  for (const [key, one] of await specialKeys(folder, tokenizer, stopIds, model.unk_token)) keys.set(key, one);
  if (tokenizer.chatTemplate) text('chat_template', tokenizer.chatTemplate.saved());
  return keys;
}

/** Byte-pair encoding of bytes, as in GPT-2; the other kinds are refused by name. */
function requireBytePairs({ model }: TokenizerJson): void {
  const { type = 'BPE', vocab, byte_fallback: hasBytes } = model;
  const refuse = (what: string): never => {
    throw new RangeError(
      `export: tokenizer.json: ${what}: only byte-pair encoding of bytes, as of GPT-2, Llama 3 and Qwen, is written`,
    );
  };
  if (type !== 'BPE') refuse(`model.type ${brief(type)}`);
  if (hasBytes) refuse('model.byte_fallback true (SentencePiece)');
  for (const name of ['continuing_subword_prefix', 'end_of_word_suffix'] as const) {
    if (model[name]) refuse(`model.${name} ${brief(model[name])}`);
  }
  const missing = BYTE_CHARACTERS.findIndex((character) => !Object.hasOwn(vocab, character));
  if (missing >= 0) refuse(`model.vocab has no token for the byte ${missing}`);
}

function tokensOf(
  vocabulary: Readonly<Record<string, number>>,
  added: readonly AddedToken[],
  vocabSize: number,
): { tokens: string[]; kinds: number[] } {
  const tokens = Array.from({ length: vocabSize }, (_, id) => `[PAD${id}]`);
  const kinds = new Array<number>(vocabSize).fill(KINDS.unused);
  for (const [token, id] of Object.entries(vocabulary)) {
    tokens[id] = token;
    kinds[id] = KINDS.normal;
  }
  for (const { id, content, special, single_word, lstrip, rstrip } of added) {
    const flags = Object.entries({ single_word, lstrip, rstrip }).filter(([, isSet]) => isSet);
    if (flags.length > 0) {
      throw new RangeError(
        `export: tokenizer.json: added token ${brief(content)} has ${flags[0]![0]}: llama.cpp takes no space with it`,
      );
    }
    tokens[id] = content;
    kinds[id] = special ? KINDS.control : KINDS.userDefined;
  }
  const firstId = new Map<string, number>();
  for (const [id, token] of tokens.entries()) {
    const other = firstId.get(token);
    if (other !== undefined)
      throw new RangeError(`export: tokenizer.json: token ${brief(token)} has the ids ${other} and ${id}`);
    firstId.set(token, id);
  }
  return { tokens, kinds };
}

async function specialKeys(
  folder: string,
  { beginOfText, endOfText, addedTokens }: Tokenizer,
  stopIds: readonly number[],
  unknown: string | null | undefined,
): Promise<Map<string, GgufValue>> {
  if (beginOfText.length > 1) {
    throw new RangeError(`export: tokenizer.json puts ${beginOfText.length} tokens before a text: llama.cpp puts one`);
  }
  const config = ((await readJsonObject(join(folder, 'tokenizer_config.json'))) ?? {}) as TokenizerConfig;
  const idOf = (content: string) => addedTokens.find((one) => one.content === content)?.id;
  const keys = new Map<string, GgufValue>();
  const id = (name: string, value: number | null | undefined) => {
    if (value !== undefined && value !== null) keys.set(`tokenizer.ggml.${name}_token_id`, { type: 'uint32', value });
  };
  const others = stopIds.filter((one) => one !== endOfText);
  id('bos', beginOfText[0] ?? idOf(contentOf(config.bos_token)));
  id('eos', endOfText);
  id('eot', others[0]);
  id('eom', others[1]);
  id('padding', idOf(contentOf(config.pad_token)));
  id('unknown', unknown ? idOf(unknown) : undefined);
  keys.set('tokenizer.ggml.add_bos_token', { type: 'bool', value: beginOfText.length > 0 });
  keys.set('tokenizer.ggml.add_eos_token', { type: 'bool', value: false });
  return keys;
}
