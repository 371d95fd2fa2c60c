// Converts text to token ids and back: by bytes, or by a tokenizer.json with the results of HuggingFace's tokenizers library.
import { existsSync } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { parseModelJson } from '../io/json.ts';
import { readIfThere } from '../io/read.ts';
import { ChatTemplate, readChatTemplate, TEMPLATE_FILES, type TokenizerConfig } from './chat_template.ts';
import type { AddedToken } from './tokenizer/added_tokens.ts';
import { decodeBytes, encodeBytes } from './tokenizer/bytes.ts';
import { lastCut } from './tokenizer/cut.ts';
import { readDecoder } from './tokenizer/decoders.ts';
import { EncodeWorker } from './tokenizer/encode_worker.ts';
import { type Encoded, Encoder } from './tokenizer/encoder.ts';
import { readPostProcessor } from './tokenizer/post_processor.ts';
import { CONFIG_FILES, findSpecialTokens, readConfigs } from './tokenizer/special_tokens.ts';

export type { Encoded };

export interface Tokenizer {
  readonly vocabSize: number;
  /** The id that ends a document; null if there is none. */
  readonly endOfText: number | null;
  /** The ids that begin a document. */
  readonly beginOfText: readonly number[];
  /** Tokens that are searched for in a text before any other step. */
  readonly addedTokens: readonly AddedToken[];
  /** How conversations become text; null if the model has no template. */
  readonly chatTemplate: ChatTemplate | null;
  /** The tokenizer.json; null for bytes. */
  readonly path: string | null;
  /** All files that ids depend on. */
  readonly files: readonly string[];
  /**
   * Encodes a text, with the ids of HuggingFace's tokenizers and no special tokens at the ends. Long texts, and all texts if the tokenizer
   * has regular expressions of its own, are encoded on another thread.
   * @throws Error if the text has half a surrogate pair, or if it takes longer than 6 s and 40 µs per character on the thread
   */
  encode(text: string): Promise<Int32Array>;
  /** Like {@link encode}, but also returns where in the text each token ends. */
  encodeWithEnds(text: string): Promise<Encoded>;
  /**
   * Adds `beginOfText` before the ids and `endOfText` after them, as asked, unless they are there already. An id that is marked as no
   * target (-1 - id) counts as the id itself.
   */
  wrap(ids: Int32Array, sides: { begin?: boolean; end?: boolean }): Int32Array;
  /** @param options.special whether special tokens are shown. @default false */
  decode(ids: ArrayLike<number>, options?: { special?: boolean }): string;
  /**
   * The last place where a text can be cut, whatever follows it, so that the ids of its parts together are those of the whole. 0: nowhere.
   */
  cutBefore(text: string): Promise<number>;
}

/** Texts with at least so many UTF-16 units are encoded on the other thread: they would block the event loop. */
const LONG_TEXT = 16_384;
/** Largest size of a tokenizer.json in bytes. The largest public ones have 35 MB. */
const MAX_BYTES = 2 ** 28;

export interface TokenizerOptions {
  /** Path of a template to use instead of the model's. */
  chatTemplate?: string;
  /** Path of a second template, used for conversations with tools if the file exists. */
  toolTemplate?: string;
  /** Variables of the template, such as enable_thinking. */
  templateVariables?: Record<string, unknown>;
  /** The date that the template sees, YYYY-MM-DD. @default today */
  templateDate?: string;
}

/**
 * Loads a tokenizer.
 * @param source `'bytes'` for 256 ids, one per byte of UTF-8; otherwise the path of a tokenizer.json
 * @throws Error that names the file, if it does not exist, is no tokenizer.json or has a part that is not supported exactly, or if the
 * files beside it name a token that it does not have
 */
export async function loadTokenizer(source: string, options: TokenizerOptions = {}): Promise<Tokenizer> {
  const { chatTemplate, templateVariables: variables, templateDate } = options;
  const settings = { variables, date: templateDate === undefined ? undefined : dayOf(templateDate) };
  const { templateConfig, ...tokenizer } = source === 'bytes' ? bytes : await load(source);
  if (!chatTemplate) {
    if (source === 'bytes') return tokenizer;
    return { ...tokenizer, chatTemplate: await readChatTemplate(dirname(source), templateConfig, settings) };
  }
  const text = await readIfThere(chatTemplate);
  if (text === null) throw new Error(`${chatTemplate}: there is no such chat template`);
  const toolTemplate = options.toolTemplate === undefined ? null : await readIfThere(options.toolTemplate);
  const template = new ChatTemplate(text, templateConfig, { ...settings, name: chatTemplate, toolTemplate });
  const files = toolTemplate === null ? [chatTemplate] : [chatTemplate, options.toolTemplate!];
  return { ...tokenizer, chatTemplate: template, files: [...tokenizer.files, ...files] };
}

type Loaded = Tokenizer & { templateConfig: TokenizerConfig };

/** Noon in local time, so that no time zone makes it another day. */
function dayOf(date: string): Date {
  const day = new Date(`${date}T12:00:00`);
  if (!/^\d{4}-\d{2}-\d{2}$/.test(date) || day.getDate() !== Number(date.slice(8)))
    throw new RangeError(`the chat template's date must be a day, YYYY-MM-DD, got '${date}'`);
  return day;
}

const bytes: Loaded = {
  vocabSize: 256,
  endOfText: null,
  beginOfText: [],
  addedTokens: [],
  chatTemplate: null,
  path: null,
  files: [],
  templateConfig: {},
  encode: async (text) => encodeBytes(wellFormed(text)).ids,
  encodeWithEnds: async (text) => encodeBytes(wellFormed(text)),
  wrap,
  decode: (ids) => decodeBytes(ids),
  cutBefore: async ({ length }) => length,
};

async function load(path: string): Promise<Loaded> {
  const text = await readTokenizerJson(path);
  const folder = dirname(path);
  const { encoder, decode, facts } = parse(text, path);
  const worker = new EncodeWorker(text, path);
  const configs = await readConfigs(folder);
  const { endOfText, beginOfText, config, notes } = findSpecialTokens(configs, folder, facts);
  for (const note of notes) process.emitWarning(note);
  const encode = async (text: string): Promise<Encoded> =>
    encoder.isQuick && text.length < LONG_TEXT ? encoder.encode(text) : worker.encode(text);
  return {
    vocabSize: facts.vocabSize,
    endOfText,
    beginOfText,
    addedTokens: encoder.addedTokens,
    chatTemplate: null,
    path,
    files: [path, ...[...CONFIG_FILES, ...TEMPLATE_FILES].map((name) => join(folder, name)).filter(existsSync)],
    templateConfig: config,
    encode: async (text) => (await encode(wellFormed(text))).ids,
    encodeWithEnds: async (text) => await encode(wellFormed(text)),
    wrap,
    decode,
    cutBefore: async (text) => await lastCut(text, async (part) => (await encode(part)).ids),
  };
}

function wrap(
  this: Pick<Tokenizer, 'beginOfText' | 'endOfText'>,
  ids: Int32Array,
  { begin = false, end = false }: { begin?: boolean; end?: boolean },
): Int32Array {
  const id = (i: number) => (ids[i]! < 0 ? -1 - ids[i]! : ids[i]);
  const before = begin && !this.beginOfText.every((one, i) => id(i) === one) ? this.beginOfText : [];
  const after = end && this.endOfText !== null && id(ids.length - 1) !== this.endOfText ? [this.endOfText] : [];
  if (before.length + after.length === 0) return ids;
  const whole = new Int32Array(before.length + ids.length + after.length);
  whole.set(before);
  whole.set(ids, before.length);
  whole.set(after, before.length + ids.length);
  return whole;
}

/** Makes the encoder and the decoder of a tokenizer.json. */
function parse(text: string, path: string) {
  try {
    const json = parseModelJson(text) as Record<string, unknown>;
    const encoder = new Encoder(json);
    const { addedTokens, model } = encoder;
    const decoder = json.decoder ? readDecoder(json.decoder, 'decoder') : null;
    const surround = readPostProcessor(json.post_processor);
    const tokens = new Map([...model.vocabulary].map(([token, id]) => [id, token]));
    for (const { id, content } of addedTokens) tokens.set(id, content);
    const special = new Set(addedTokens.filter(({ special }) => special).map(({ id }) => id));
    const added = new Map(addedTokens.map(({ content, id }) => [content, id]));
    const vocabSize = [...tokens.keys()].reduce((largest, id) => Math.max(largest, id), -1) + 1;
    return {
      encoder,
      facts: {
        path,
        vocabSize,
        surround,
        hasPostProcessor: Boolean(json.post_processor),
        idOf: (token: string) => added.get(token) ?? model.vocabulary.get(token),
        isId: (id: number) => tokens.has(id),
        added: [...added.keys()],
      },
      decode(ids: ArrayLike<number>, { special: isShown = false }: { special?: boolean } = {}): string {
        const shown = Array.from(ids).filter((id) => tokens.has(id) && (isShown || !special.has(id)));
        if (shown.length === 0) return '';
        const parts = shown.map((id) => tokens.get(id)!);
        return decoder ? decoder(parts).join('') : parts.join(' ');
      },
    };
  } catch (error) {
    throw new Error(`${path}: cannot be used as tokenizer.json: ${(error as Error).message}`, { cause: error });
  }
}

async function readTokenizerJson(path: string): Promise<string> {
  try {
    const { size } = await stat(path);
    if (size > MAX_BYTES) throw new Error(`has ${size} bytes, more than ${MAX_BYTES}`);
    const text = await readFile(path, 'utf8');
    if (text.startsWith('version https://git-lfs')) {
      throw new Error('is a pointer of git-lfs, run  git lfs pull  in its folder');
    }
    return text;
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    throw new Error(`${path}: ${code === 'ENOENT' ? advice(dirname(path)) : message}`, { cause: error });
  }
}

function advice(folder: string): string {
  const others = ['tokenizer.model', 'vocab.json', 'vocab.txt', 'tekken.json'].filter((name) =>
    existsSync(join(folder, name)),
  );
  if (others.length === 0) return 'there is no such file';
  const python = `from transformers import AutoTokenizer as T; T.from_pretrained('${folder}').save_pretrained('${folder}')`;
  return `there is no such file, only ${others.join(', ')}. To create it:  python3 -c "${python}"`;
}

function wellFormed(text: string): string {
  const half = /\p{Surrogate}/u.exec(text);
  if (half) {
    const code = half[0].charCodeAt(0).toString(16);
    throw new Error(
      `tokenizer: character ${half.index} of the text is half a surrogate pair (\\u${code}), which UTF-8 cannot encode`,
    );
  }
  return text;
}
