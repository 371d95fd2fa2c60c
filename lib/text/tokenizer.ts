// Text to token ids and back: bytes as they are, or a tokenizer.json as HuggingFace's tokenizers reads it.
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
  /** Id that ends a document; null: none. */
  readonly endOfText: number | null;
  /** Ids that begin a document. */
  readonly beginOfText: readonly number[];
  /** Tokens that are found in a text before anything else is done with it. */
  readonly addedTokens: readonly AddedToken[];
  /** How conversations become text; null where the model has no template. */
  readonly chatTemplate: ChatTemplate | null;
  /** The tokenizer.json; null for bytes. */
  readonly path: string | null;
  /** All files that ids depend on. */
  readonly files: readonly string[];
  /**
   * The ids that HuggingFace's tokenizers gives for the whole text, without special tokens at the ends. Long texts, and all texts of a
   * tokenizer with regular expressions of its own, are encoded on another thread.
   * @throws Error for half a surrogate pair, which is no text; where a regular expression of the tokenizer hangs: 6 s and 40 µs a character
   */
  encode(text: string): Promise<Int32Array>;
  /** {@link encode}, and for each token the place in the text where it ends. */
  encodeWithEnds(text: string): Promise<Encoded>;
  /**
   * With `beginOfText` before the ids and `endOfText` after them, where asked for and unless they are there already. Ids that are marked as
   * no targets (-1 - id) count as the ids that they are.
   */
  wrap(ids: Int32Array, sides: { begin?: boolean; end?: boolean }): Int32Array;
  /** @param options.special whether special tokens are shown. @default false */
  decode(ids: ArrayLike<number>, options?: { special?: boolean }): string;
  /** The last place where a text may be cut, whatever follows it: its parts' ids, one after another, are the whole's. 0: nowhere. */
  cutBefore(text: string): Promise<number>;
}

/** Characters from which on the event loop would notice. */
const LONG_TEXT = 16_384;
/** Bytes of a tokenizer.json: the largest public ones have 35 MB. */
const MAX_BYTES = 2 ** 28;

export interface TokenizerOptions {
  /** Path of a template to use instead of the model's. */
  chatTemplate?: string;
  /** Path of one beside it for conversations with tools, where it is there. */
  toolTemplate?: string;
  /** Variables of the template, such as enable_thinking. */
  templateVariables?: Record<string, unknown>;
  /** The day that the template may write, YYYY-MM-DD. @default today */
  templateDate?: string;
}

/**
 * `'bytes'`: 256 ids, one a byte of UTF-8. Otherwise the path of a tokenizer.json.
 * @throws Error that names the file: it is not there, is no tokenizer.json, has a part that cannot be done exactly, or the files beside it
 * name a token that it does not have
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

/** Noon there, so that no zone of time makes it another day. */
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

/** Reads all that a file says of itself. */
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
  return `there is no such file, only ${others.join(', ')}. To make it, once:  python3 -c "${python}"`;
}

function wellFormed(text: string): string {
  const half = /\p{Surrogate}/u.exec(text);
  if (half) {
    const code = half[0].charCodeAt(0).toString(16);
    throw new Error(
      `tokenizer: character ${half.index} of the text is half a surrogate pair (\\u${code}), which UTF-8 cannot have`,
    );
  }
  return text;
}
