// Generates text from a model, token by token.

import { uniforms } from '../data/shuffle.ts';
import { KeyValueCache } from '../models/cache.ts';
import type { Decoder } from '../models/decoder.ts';
import { requireCount, requireFinite } from '../ops/check.ts';
import type { Conversation } from '../text/records/record.ts';
import type { Tokenizer } from '../text/tokenizer.ts';
import { type GenerationDefaults, readGenerationConfig } from './generation_config.ts';
import { type SamplingOptions, sampleToken } from './sample.ts';
import { stopIdsOf } from './stop_ids.ts';
import { TextStream } from './text_stream.ts';

export interface GenerateOptions extends SamplingOptions {
  /** Most new tokens. @default 256 */
  maxTokens?: number;
  /** The same seed gives the same text. @default 0 */
  seed?: number;
  /** Strings that end the text; they are not part of it. @default those of generation_config.json */
  stop?: string | readonly string[];
  /**
   * Tokens that end the text. @default those of the model's generation_config.json or, if it has none, of its config.json; the tokenizer's
   * end-of-text token; and in a conversation the token with which the chat template ends the assistant's turns
   */
  stopIds?: readonly number[];
  /** Number of prompt tokens that the model processes at a time; limits memory. @default 512 */
  chunkSize?: number;
  /** Ends generation between two tokens. */
  signal?: AbortSignal;
}

/** One generated token. */
export interface GeneratedToken {
  id: number;
  /** The text that this token completes: whole characters, often ''. The last token also has all remaining text. */
  text: string;
  /** Natural log-probability in the model's full distribution at the temperature (1 if that is 0). */
  logProbability: number;
}

/** A text, to which the tokenizer adds its start tokens; ids, used as they are; or a conversation, which the assistant answers. */
export type Prompt = string | readonly number[] | Conversation;

/**
 * Continues a prompt. Memory for keys and values is allocated at the start and freed at the end, even if the caller stops early.
 * @throws RangeError for an empty prompt, an id outside the vocabulary, options that make no sense
 * @throws Error where the model's logits are not finite
 */
export async function* generate(
  model: Decoder,
  tokenizer: Tokenizer,
  prompt: Prompt,
  options: GenerateOptions = {},
): AsyncGenerator<GeneratedToken, void, void> {
  const { maxTokens = 256, seed = 0, chunkSize = 512, signal } = options;
  checkOptions(options);
  const defaults = await readGenerationConfig(model.origin?.folder ?? null);
  const sampling = samplingOf(options, defaults);
  const answered = typeof prompt === 'object' && 'messages' in prompt ? prompt : null;
  const ids = await promptIds(model, tokenizer, prompt);
  const stopIds = new Set(options.stopIds ?? (await stopIdsOf(model.config, tokenizer, defaults, answered)));
  using cache = new KeyValueCache(model, ids.length + maxTokens);
  // A text continues where the prompt ends; an answer is a new text.
  const context = answered ? [] : ids;
  const text = new TextStream(tokenizer, { stops: [options.stop ?? defaults.stop].flat(), context });
  const random = uniforms(seed, 0);
  const seen = new Set(ids);
  /** All ids, those of the prompt first. */
  const all = [...ids];
  /** Logits after all ids; reads those that the cache lacks, all of them where longrope changes its frequencies. */
  const read = async (): Promise<Float32Array> => {
    if (!model.continues(cache, all.length)) cache.length = 0;
    let logits: Float32Array = new Float32Array();
    while (cache.length < all.length && !signal?.aborted) {
      const piece = Int32Array.from(all.slice(cache.length, cache.length + chunkSize));
      logits = await model.decode(piece, cache, { length: all.length });
    }
    return logits;
  };
  let logits = await read();
  if (signal?.aborted) return;
  let waiting: GeneratedToken | null = null; // yielded one token late, so that the last one can carry the remaining text
  for (let count = 0; count < maxTokens && !signal?.aborted && !text.isStopped; count++) {
    requireFiniteLogits(logits, count);
    const { id, logProbability } = sampleToken(logits, sampling, random(), seen);
    if (stopIds.has(id)) break;
    if (waiting) yield waiting;
    waiting = { id, text: text.push(id), logProbability };
    seen.add(id);
    all.push(id);
    if (count + 1 < maxTokens && !text.isStopped) logits = await read();
  }
  if (waiting) yield { ...waiting, text: waiting.text + text.end() };
}

/** The caller's options, completed with defaults from the model's folder. */
function samplingOf(options: GenerateOptions, { sampling }: GenerationDefaults): SamplingOptions {
  return {
    temperature: options.temperature ?? sampling.temperature,
    topK: options.topK ?? sampling.topK,
    topP: options.topP ?? sampling.topP,
    minP: options.minP ?? sampling.minP,
    repetitionPenalty: options.repetitionPenalty ?? sampling.repetitionPenalty,
  };
}

function requireFiniteLogits(logits: Float32Array, count: number): void {
  const id = logits.findIndex((value) => !Number.isFinite(value));
  if (id < 0) return;
  throw new Error(
    `generate: the model's logits are not finite: ${logits[id]} for id ${id}, after ${count} new tokens; its weights may contain NaN or infinity, or values overflow`,
  );
}

/** The whole of it. */
export async function generateText(
  model: Decoder,
  tokenizer: Tokenizer,
  prompt: Prompt,
  options: GenerateOptions = {},
): Promise<string> {
  let whole = '';
  for await (const { text } of generate(model, tokenizer, prompt, options)) whole += text;
  return whole;
}

function checkOptions(options: GenerateOptions): void {
  const { maxTokens = 1, chunkSize = 1, seed = 0, temperature = 1, topK = 0, topP = 1, minP = 0 } = options;
  const { repetitionPenalty = 1 } = options;
  requireCount('generate', 'maxTokens', maxTokens);
  requireCount('generate', 'chunkSize', chunkSize);
  for (const [name, value] of Object.entries({ seed, topK })) {
    if (!Number.isInteger(value)) throw new RangeError(`generate: ${name} must be an integer, got ${value}`);
    requireFinite('generate', name, value, { min: 0 });
  }
  requireFinite('generate', 'temperature', temperature, { min: 0 });
  requireFinite('generate', 'topP', topP, { min: Number.MIN_VALUE, max: 1 });
  requireFinite('generate', 'minP', minP, { min: 0, max: 1 });
  requireFinite('generate', 'repetitionPenalty', repetitionPenalty, { min: Number.MIN_VALUE });
}

async function promptIds(model: Decoder, tokenizer: Tokenizer, prompt: Prompt): Promise<Int32Array> {
  const ids = await encoded(tokenizer, prompt);
  if (ids.length === 0) throw new RangeError('generate: the prompt is empty');
  const V = model.config.vocabSize;
  const wrong = ids.findIndex((id) => !(id >= 0 && id < V));
  if (wrong >= 0)
    throw new RangeError(`generate: token ${wrong} of the prompt has id ${ids[wrong]}, outside [0, ${V})`);
  return ids;
}

async function encoded(tokenizer: Tokenizer, prompt: Prompt): Promise<Int32Array> {
  if (typeof prompt === 'string') {
    return tokenizer.wrap(await tokenizer.encode(prompt), { begin: true });
  }
  if (!('messages' in prompt)) return Int32Array.from(prompt);
  if (!tokenizer.chatTemplate)
    throw new Error('generate: a conversation needs a chat template in the folder of tokenizer.json');
  return await tokenizer.encode(await tokenizer.chatTemplate.prompt(prompt));
}
