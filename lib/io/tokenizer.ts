// Text to token ids: bytes as they are, or a tokenizer.json through @huggingface/tokenizers.
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { Worker } from 'node:worker_threads';
import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';

export interface Tokenizer {
  readonly vocabSize: number;
  /** Id that ends a document; null: none. */
  readonly endOfText: number | null;
  /** The tokenizer.json; null for bytes. */
  readonly path: string | null;
  /** Without special tokens at the ends. Long texts are encoded on another thread. */
  encode(text: string): Promise<Int32Array>;
  decode(ids: ArrayLike<number>): string;
}

/** Names that end a document, in the tokenizers of the families. */
const END_NAMES = ['<|endoftext|>', '<|end_of_text|>', '</s>', '<eos>'];
/** Characters from which on a thread of its own pays, and the event loop would notice. */
const LONG_TEXT = 16384;
/** Characters encoded at a time; the library holds about 50 bytes for each. */
const PIECE = 2 ** 18;
/** Characters on either side of a cut that it is checked on. */
const CONTEXT = 512;

/** `'bytes'`: 256 ids, one a byte of UTF-8. Otherwise the path of a tokenizer.json. */
export async function loadTokenizer(source: string): Promise<Tokenizer> {
  return source === 'bytes' ? bytes : await load(source);
}

const bytes: Tokenizer = {
  vocabSize: 256,
  endOfText: null,
  path: null,
  encode: async (text) => Int32Array.from(new TextEncoder().encode(text)),
  // ignoreBOM keeps a byte order mark in the text.
  decode: (ids) => new TextDecoder('utf-8', { ignoreBOM: true }).decode(Uint8Array.from(ids)),
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
  return {
    vocabSize,
    endOfText: added.find(({ content }) => END_NAMES.includes(content))?.id ?? null,
    path,
    async encode(text) {
      return text.length < LONG_TEXT ? Int32Array.from(encode(text)) : encodeOnThread(json, cut(text, encode));
    },
    decode: (ids) =>
      ids.length === 0
        ? ''
        : tokenizer.decode(Array.from(ids), { skip_special_tokens: true, clean_up_tokenization_spaces: false }),
  };
}

/**
 * Cuts a text into pieces whose ids, one after another, are those of the whole. A cut is between two words, where pre-tokenizers split
 * whatever stands around; a tokenizer that does not (one that puts a space before each text) fails the check, and the rest stays whole.
 */
export function cut(text: string, encode: (text: string) => number[], pieceLength = PIECE): string[] {
  const betweenWords = /(?<=\p{L})(?= \p{L})|(?<=\S\n)(?=\p{L})/gu;
  const pieces: string[] = [];
  let begin = 0;
  for (;;) {
    betweenWords.lastIndex = begin + pieceLength;
    const end = betweenWords.exec(text)?.index;
    if (end === undefined || end <= begin) break; // a search that begins inside a surrogate pair finds the pair's own start
    const [left, right] = [text.slice(Math.max(begin, end - CONTEXT), end), text.slice(end, end + CONTEXT)];
    if (encode(left + right).join() !== [...encode(left), ...encode(right)].join()) break;
    pieces.push(text.slice(begin, end));
    begin = end;
  }
  pieces.push(text.slice(begin));
  return pieces;
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
export function concatenate(parts: readonly Int32Array[]): Int32Array {
  const whole = new Int32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let offset = 0;
  for (const part of parts) {
    whole.set(part, offset);
    offset += part.length;
  }
  return whole;
}
