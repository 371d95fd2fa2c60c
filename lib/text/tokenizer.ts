// Text to token ids: bytes as they are, or a tokenizer.json through @huggingface/tokenizers.
import { existsSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { Worker } from 'node:worker_threads';
import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';
import { readIfThere } from '../io/read.ts';
import { ChatTemplate, contentOf, readChatTemplate, type TokenizerConfig } from './chat_template.ts';

export interface Tokenizer {
  readonly vocabSize: number;
  /** Id that ends a document; null: none. */
  readonly endOfText: number | null;
  /** Ids that begin a document. */
  readonly beginOfText: readonly number[];
  /** How conversations become text; null where the model has no template. */
  readonly chatTemplate: ChatTemplate | null;
  /** The tokenizer.json; null for bytes. */
  readonly path: string | null;
  /** All files that ids depend on. */
  readonly files: readonly string[];
  /** Without special tokens at the ends. Long texts are encoded on another thread. */
  encode(text: string): Promise<Int32Array>;
  /** Without special tokens. */
  decode(ids: ArrayLike<number>): string;
  /** The last place where a text may be cut, whatever follows it: its parts' ids, one after another, are the whole's. 0: nowhere. */
  cutBefore(text: string): number;
}

/** Names that end a document, in the tokenizers of the families. */
const END_NAMES = ['<|endoftext|>', '<|end_of_text|>', '</s>', '<eos>'];
/** Characters from which on a thread of its own pays, and the event loop would notice. */
const LONG_TEXT = 16384;
/** Characters encoded at a time; the library holds about 50 bytes for each. */
const PIECE = 2 ** 18;
/** Characters on either side of a cut that it is checked on. */
const CONTEXT = 512;
/** Characters at a text's end in which a place to cut it is looked for. */
const SEARCHED = 4096;
/** Where pre-tokenizers split whatever stands around. */
const BETWEEN_WORDS = /(?<=\p{L})(?= \p{L})|(?<=\S\n)(?=\p{L})/gu;

/** `'bytes'`: 256 ids, one a byte of UTF-8. Otherwise the path of a tokenizer.json. */
export async function loadTokenizer(
  source: string,
  options: { /** Path of a template to use instead of the model's. */ chatTemplate?: string } = {},
): Promise<Tokenizer> {
  const { chatTemplate } = options;
  const tokenizer = source === 'bytes' ? bytes : await load(source);
  if (!chatTemplate) return tokenizer;
  const text = await readIfThere(chatTemplate);
  if (text === null) throw new Error(`${chatTemplate}: there is no such chat template`);
  const config = await readTokenizerConfig(tokenizer.path);
  return { ...tokenizer, chatTemplate: new ChatTemplate(text, config), files: [...tokenizer.files, chatTemplate] };
}

const bytes: Tokenizer = {
  vocabSize: 256,
  endOfText: null,
  beginOfText: [],
  chatTemplate: null,
  path: null,
  files: [],
  encode: async (text) => Int32Array.from(new TextEncoder().encode(text)),
  // ignoreBOM keeps a byte order mark in the text.
  decode: (ids) => new TextDecoder('utf-8', { ignoreBOM: true }).decode(Uint8Array.from(ids)),
  cutBefore: ({ length }) => length,
};

interface TokenizerJson {
  added_tokens?: { id: number; content: string }[];
  model?: { vocab?: Record<string, number> | [string, number][] };
}

async function load(path: string): Promise<Tokenizer> {
  let json: TokenizerJson;
  let tokenizer: HuggingFaceTokenizer;
  try {
    json = JSON.parse(await readFile(path, 'utf8')) as TokenizerJson;
    tokenizer = new HuggingFaceTokenizer(json, {});
  } catch (error) {
    throw new Error(`${path}: no tokenizer.json: ${(error as Error).message}`, { cause: error });
  }
  const added = json.added_tokens ?? [];
  const vocab = json.model?.vocab ?? {};
  const ids = Array.isArray(vocab) ? vocab.map((_, id) => id) : Object.values(vocab);
  const vocabSize = [...ids, ...added.map(({ id }) => id)].reduce((largest, id) => Math.max(largest, id), -1) + 1;
  const encode = (text: string) => tokenizer.encode(text, { add_special_tokens: false }).ids;
  const config = await readTokenizerConfig(path);
  const eos = contentOf(config.eos_token);
  return {
    vocabSize,
    endOfText: added.find(({ content }) => (eos ? content === eos : END_NAMES.includes(content)))?.id ?? null,
    beginOfText: beginOfText(tokenizer),
    chatTemplate: await readChatTemplate(dirname(path), config),
    path,
    files: [path, ...CONFIG_FILES.map((name) => join(dirname(path), name)).filter(existsSync)],
    async encode(text) {
      return text.length < LONG_TEXT ? Int32Array.from(encode(text)) : encodeOnThread(json, cut(text, encode));
    },
    decode: (ids) =>
      ids.length === 0
        ? ''
        : tokenizer.decode(Array.from(ids), { skip_special_tokens: true, clean_up_tokenization_spaces: false }),
    cutBefore(text) {
      let found = 0;
      for (const { index } of text.slice(0, -CONTEXT).slice(-SEARCHED).matchAll(BETWEEN_WORDS)) {
        found = index + Math.max(0, text.length - CONTEXT - SEARCHED);
      }
      return found > 0 && isCut(text, found, encode) ? found : 0;
    },
  };
}

const CONFIG_FILES = ['tokenizer_config.json', 'chat_template.jinja'];

async function readTokenizerConfig(path: string | null): Promise<TokenizerConfig> {
  if (path === null) return {};
  const file = join(dirname(path), 'tokenizer_config.json');
  const text = await readIfThere(file);
  try {
    return text === null ? {} : (JSON.parse(text) as TokenizerConfig);
  } catch (error) {
    throw new Error(`${file}: is not JSON: ${(error as Error).message}`, { cause: error });
  }
}

/** What the tokenizer puts before a text of its own accord. */
function beginOfText(tokenizer: HuggingFaceTokenizer): number[] {
  const text = 'a';
  const plain = tokenizer.encode(text, { add_special_tokens: false }).ids;
  const whole = tokenizer.encode(text).ids;
  return whole.slice(0, Math.max(0, whole.indexOf(plain[0]!)));
}

/**
 * Cuts a text into pieces whose ids, one after another, are those of the whole. A cut is between two words, where pre-tokenizers split
 * whatever stands around; a tokenizer that does not (one that puts a space before each text) fails the check, and the rest stays whole.
 */
export function cut(text: string, encode: (text: string) => number[], pieceLength = PIECE): string[] {
  const betweenWords = new RegExp(BETWEEN_WORDS);
  const pieces: string[] = [];
  let begin = 0;
  for (;;) {
    betweenWords.lastIndex = begin + pieceLength;
    const end = betweenWords.exec(text)?.index;
    if (end === undefined || end <= begin) break; // a search that begins inside a surrogate pair finds the pair's own start
    if (!isCut(text, end, encode, begin)) break;
    pieces.push(text.slice(begin, end));
    begin = end;
  }
  pieces.push(text.slice(begin));
  return pieces;
}

/** Whether a text's ids are those of its parts before and after `at`. */
function isCut(text: string, at: number, encode: (text: string) => number[], begin = 0): boolean {
  const [left, right] = [text.slice(Math.max(begin, at - CONTEXT), at), text.slice(at, at + CONTEXT)];
  return encode(left + right).join() === [...encode(left), ...encode(right)].join();
}

/** The library is synchronous: a megabyte takes it a second. */
async function encodeOnThread(json: TokenizerJson, pieces: string[]): Promise<Int32Array> {
  const library = createRequire(import.meta.url).resolve('@huggingface/tokenizers');
  const source = `
    const { parentPort, workerData: { library, json, pieces } } = require('node:worker_threads');
    const { Tokenizer } = require(library);
    const tokenizer = new Tokenizer(json, {});
    for (const piece of pieces) {
      const ids = Int32Array.from(tokenizer.encode(piece, { add_special_tokens: false }).ids);
      parentPort.postMessage(ids, [ids.buffer]);
    }`;
  const worker = new Worker(source, { eval: true, workerData: { library, json, pieces } });
  const parts: Int32Array[] = [];
  worker.on('message', (ids: Int32Array) => parts.push(ids));
  await new Promise<void>((resolve, reject) => {
    worker.once('error', reject);
    worker.once('exit', (code) =>
      code === 0 ? resolve() : reject(new Error(`tokenizer: the thread ended with ${code}`)),
    );
  });
  return concatenate(parts);
}

/** One array of all ids. */
function concatenate(parts: readonly Int32Array[]): Int32Array {
  const whole = new Int32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let offset = 0;
  for (const part of parts) {
    whole.set(part, offset);
    offset += part.length;
  }
  return whole;
}
