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

/** `'bytes'`: 256 ids, one a byte of UTF-8. Otherwise the path of a tokenizer.json. */
export async function loadTokenizer(source: string): Promise<Tokenizer> {
  return source === 'bytes' ? bytes : await load(source);
}

const bytes: Tokenizer = {
  vocabSize: 256,
  endOfText: null,
  path: null,
  encode: async (text) => Int32Array.from(new TextEncoder().encode(text)),
  decode: (ids) => new TextDecoder().decode(Uint8Array.from(ids)),
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
  return {
    vocabSize,
    endOfText: added.find(({ content }) => END_NAMES.includes(content))?.id ?? null,
    path,
    async encode(text) {
      if (text.length >= LONG_TEXT) return encodeOnThread(json, text);
      return Int32Array.from(tokenizer.encode(text, { add_special_tokens: false }).ids);
    },
    decode: (ids) =>
      ids.length === 0
        ? ''
        : tokenizer.decode(Array.from(ids), { skip_special_tokens: true, clean_up_tokenization_spaces: false }),
  };
}

/** The library is synchronous: a megabyte takes it a second. */
async function encodeOnThread(json: TokenizerJson, text: string): Promise<Int32Array> {
  const library = createRequire(import.meta.url).resolve('@huggingface/tokenizers');
  const source = `
    const { parentPort, workerData: { library, json, text } } = require('node:worker_threads');
    const { Tokenizer } = require(library);
    const ids = Int32Array.from(new Tokenizer(json, {}).encode(text, { add_special_tokens: false }).ids);
    parentPort.postMessage(ids, [ids.buffer]);`;
  const worker = new Worker(source, { eval: true, workerData: { library, json, text } });
  try {
    return await new Promise<Int32Array>((resolve, reject) => {
      worker.once('message', resolve);
      worker.once('error', reject);
      worker.once('exit', (code) => reject(new Error(`tokenizer: the thread ended with ${code}`)));
    });
  } finally {
    await worker.terminate();
  }
}
