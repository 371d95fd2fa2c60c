// Documents and conversations from files, one at a time: the whole of a data set need not fit in memory.
import { createReadStream } from 'node:fs';
import { open, stat } from 'node:fs/promises';
import { extname } from 'node:path';
import { Readable } from 'node:stream';
import { TextDecoderStream } from 'node:stream/web';
import { createGunzip } from 'node:zlib';
import type { DataRecord, DocumentPart, Message } from './record.ts';

const JSON_LINES = new Set(['.jsonl', '.ndjson']);

/**
 * The records of files, in order: .jsonl (or .ndjson), .json (one list), .parquet, each also as .gz but the last; any other name is UTF-8
 * text, one document a file. Throws an Error that names the file and line.
 */
export async function* readRecords(files: readonly string[]): AsyncGenerator<DocumentPart> {
  for (const path of files) {
    try {
      await stat(path);
    } catch (error) {
      throw new Error(`${path}: cannot be read: ${(error as Error).message}`, { cause: error });
    }
    const kind = extname(path.replace(/\.gz$/, '')).toLowerCase();
    if (JSON_LINES.has(kind)) yield* jsonLines(path);
    else if (kind === '.json') yield* jsonList(path);
    else if (kind === '.parquet') yield* parquet(path);
    else yield* plainText(path);
  }
}

/** A file's text in pieces, unpacked where it is compressed; a byte order mark is taken away. */
async function* textOf(path: string): AsyncGenerator<string> {
  const file = createReadStream(path);
  const bytes = path.endsWith('.gz') ? file.pipe(createGunzip()) : file;
  if (bytes !== file) file.on('error', (error) => bytes.destroy(error));
  try {
    yield* Readable.toWeb(bytes).pipeThrough(new TextDecoderStream('utf-8', { fatal: true })) as AsyncIterable<string>;
  } catch (error) {
    const isText = (error as NodeJS.ErrnoException).code !== 'ERR_ENCODING_INVALID_ENCODED_DATA';
    throw new Error(isText ? `${path}: ${(error as Error).message}` : `${path}: is not UTF-8 text`, { cause: error });
  }
}

/** Characters of a part of a plain text. */
const PART = 4 * 2 ** 20;

async function* plainText(path: string): AsyncGenerator<DocumentPart> {
  let text = '';
  let isEmpty = true;
  for await (const piece of textOf(path)) {
    if (text.length >= PART) {
      yield { record: { text }, isEnd: false, place: path };
      text = '';
    }
    text += piece;
    isEmpty &&= piece === '';
  }
  if (isEmpty) throw new Error(`${path}: is empty`);
  yield { record: { text }, isEnd: true, place: path };
}

async function* jsonLines(path: string): AsyncGenerator<DocumentPart> {
  let rest = '';
  let number = 0;
  const parsed = (line: string): DocumentPart[] => {
    number += 1;
    if (line.trim() === '') return [];
    const place = `${path}:${number}`;
    let value: unknown;
    try {
      value = JSON.parse(line);
    } catch (error) {
      throw new Error(`${place}: is not JSON: ${(error as Error).message}`, { cause: error });
    }
    return [{ record: toRecord(value, place), isEnd: true, place }];
  };
  for await (const text of textOf(path)) {
    const lines = (rest + text).split('\n');
    rest = lines.pop()!;
    for (const line of lines) yield* parsed(line);
  }
  yield* parsed(rest);
}

async function* jsonList(path: string): AsyncGenerator<DocumentPart> {
  let text = '';
  for await (const piece of textOf(path)) text += piece;
  let list: unknown;
  try {
    list = JSON.parse(text);
  } catch (error) {
    throw new Error(`${path}: is not JSON: ${(error as Error).message}`, { cause: error });
  }
  if (!Array.isArray(list)) throw new Error(`${path}: is not a JSON list; one object a line is for .jsonl`);
  for (const [i, value] of list.entries()) {
    const place = `${path}[${i}]`;
    yield { record: toRecord(value, place), isEnd: true, place };
  }
}

async function* parquet(path: string): AsyncGenerator<DocumentPart> {
  const { parquetMetadataAsync, parquetReadObjects } = await optional(path, () => import('hyparquet'));
  const { compressors } = await optional(path, () => import('hyparquet-compressors'));
  const handle = await open(path);
  try {
    const { size } = await handle.stat();
    const file = {
      byteLength: size,
      async slice(begin: number, end = size) {
        const bytes = new Uint8Array(end - begin);
        const { bytesRead } = await handle.read(bytes, 0, bytes.length, begin);
        if (bytesRead < bytes.length) throw new Error(`ends ${bytes.length - bytesRead} bytes early`);
        return bytes.buffer as ArrayBuffer;
      },
    };
    const metadata = await parquetMetadataAsync(file);
    let row = 0;
    for (const group of metadata.row_groups) {
      const rowEnd = row + Number(group.num_rows);
      const values = await parquetReadObjects({ file, metadata, compressors, rowStart: row, rowEnd });
      for (const value of values) {
        const place = `${path}, row ${row++}`;
        yield { record: toRecord(value, place), isEnd: true, place };
      }
    }
  } catch (error) {
    const { message } = error as Error;
    throw message.startsWith(path) ? error : new Error(`${path}: ${message}`, { cause: error });
  } finally {
    await handle.close();
  }
}

async function optional<T>(path: string, load: () => Promise<T>): Promise<T> {
  try {
    return await load();
  } catch (error) {
    throw new Error(`${path}: to read parquet, run  npm install hyparquet hyparquet-compressors`, { cause: error });
  }
}

/** Recognises the form of a record by its fields. */
export function toRecord(value: unknown, place: string): DataRecord {
  const { text, prompt, completion, messages } = (value ?? {}) as Record<string, unknown>;
  if (messages !== undefined) return { messages: toMessages(messages, `${place}: messages`) };
  if (prompt !== undefined && completion !== undefined) {
    if (typeof prompt === 'string' && typeof completion === 'string') return { prompt, completion };
    const first = toMessages(prompt, `${place}: prompt`);
    return { messages: [...first, ...toMessages(completion, `${place}: completion`)], firstTarget: first.length };
  }
  if (typeof text === 'string') return { text };
  const fields = typeof value === 'object' && value !== null ? Object.keys(value).join(', ') : typeof value;
  throw new Error(`${place}: must have { text }, { prompt, completion } or { messages }, got ${fields || 'nothing'}`);
}

function toMessages(value: unknown, place: string): Message[] {
  const isMessage = (one: unknown) => typeof (one as Message | null)?.role === 'string';
  if (!Array.isArray(value) || value.length === 0 || !value.every(isMessage)) {
    throw new Error(`${place} must be a list of { role, content }`);
  }
  return value as Message[];
}
