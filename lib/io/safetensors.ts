// The safetensors format: 8 bytes of header length (little-endian), a JSON header, then the tensors' bytes without gaps.
// https://huggingface.co/docs/safetensors
import { type FileHandle, open, rename, unlink } from 'node:fs/promises';

/** Dtypes of files, with their bytes. */
export const dtypeBytes = { F64: 8, F32: 4, F16: 2, BF16: 2, I64: 8, I32: 4, U8: 1 } as const;
export type SafetensorsDtype = keyof typeof dtypeBytes;

/** The largest header that is read. */
const MAX_HEADER_BYTES = 100 * 2 ** 20;
const LENGTH_BYTES = 8;
const ALIGNMENT = 8;

export interface SafetensorsEntry {
  dtype: SafetensorsDtype;
  shape: number[];
  /** First byte in the file. */
  begin: number;
  bytes: number;
}

/** Thrown for a file that breaks the format; the message names the file, the tensor and both values. */
export class SafetensorsError extends Error {
  override readonly name = 'SafetensorsError';
}

/** One open file. */
export class SafetensorsFile {
  readonly path: string;
  readonly entries: ReadonlyMap<string, SafetensorsEntry>;
  readonly #handle: FileHandle;

  private constructor(path: string, handle: FileHandle, entries: ReadonlyMap<string, SafetensorsEntry>) {
    this.path = path;
    this.#handle = handle;
    this.entries = entries;
  }

  /** Reads and checks the header. The caller closes the file. */
  static async open(path: string): Promise<SafetensorsFile> {
    const handle = await open(path, 'r');
    try {
      const { size } = await handle.stat();
      return new SafetensorsFile(path, handle, parseHeader(path, await readHeader(path, handle, size), size));
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  /** The bytes of one tensor. */
  async read(name: string): Promise<Uint8Array> {
    const entry = this.entries.get(name);
    if (!entry) throw new SafetensorsError(`${this.path}: has no tensor '${name}'`);
    const bytes = new Uint8Array(entry.bytes);
    await readFully(this.path, this.#handle, bytes, entry.begin);
    return bytes;
  }

  /** The bytes of one tensor in pieces of at most `pieceBytes`, with where each begins within the tensor. */
  async *pieces(name: string, pieceBytes: number): AsyncGenerator<{ begin: number; bytes: Uint8Array }> {
    const entry = this.entries.get(name);
    if (!entry) throw new SafetensorsError(`${this.path}: has no tensor '${name}'`);
    for (let begin = 0; begin < entry.bytes; begin += pieceBytes) {
      const bytes = new Uint8Array(Math.min(pieceBytes, entry.bytes - begin));
      await readFully(this.path, this.#handle, bytes, entry.begin + begin);
      yield { begin, bytes };
    }
  }

  async close(): Promise<void> {
    await this.#handle.close();
  }
}

async function readFully(path: string, handle: FileHandle, into: Uint8Array, begin: number): Promise<void> {
  let done = 0;
  while (done < into.length) {
    const { bytesRead } = await handle.read(into, done, Math.min(into.length - done, 2 ** 30), begin + done);
    if (bytesRead === 0) throw new SafetensorsError(`${path}: ends ${into.length - done} bytes early`);
    done += bytesRead;
  }
}

/** The header's JSON text, and where the tensors' bytes begin. */
async function readHeader(
  path: string,
  handle: FileHandle,
  fileBytes: number,
): Promise<{ text: string; dataBegin: number }> {
  if (fileBytes < LENGTH_BYTES) throw new SafetensorsError(`${path}: ${fileBytes} bytes are no safetensors file`);
  const prefix = new Uint8Array(LENGTH_BYTES);
  await readFully(path, handle, prefix, 0);
  const length = new DataView(prefix.buffer).getBigUint64(0, true);
  if (length > BigInt(MAX_HEADER_BYTES)) {
    throw new SafetensorsError(`${path}: header of ${length} bytes is over the limit of ${MAX_HEADER_BYTES}`);
  }
  const dataBegin = LENGTH_BYTES + Number(length);
  if (dataBegin > fileBytes)
    throw new SafetensorsError(`${path}: header of ${length} bytes, but the file has ${fileBytes}`);
  const bytes = new Uint8Array(Number(length));
  await readFully(path, handle, bytes, LENGTH_BYTES);
  try {
    return { text: new TextDecoder('utf-8', { fatal: true }).decode(bytes), dataBegin };
  } catch {
    throw new SafetensorsError(`${path}: the header is not UTF-8`);
  }
}

function parseHeader(
  path: string,
  { text, dataBegin }: { text: string; dataBegin: number },
  fileBytes: number,
): Map<string, SafetensorsEntry> {
  let header: unknown;
  try {
    header = JSON.parse(text);
  } catch (error) {
    throw new SafetensorsError(`${path}: the header is not JSON: ${(error as Error).message}`);
  }
  if (typeof header !== 'object' || header === null || Array.isArray(header)) {
    throw new SafetensorsError(`${path}: the header is not a JSON object`);
  }
  const repeated = repeatedKey(text);
  if (repeated !== null) throw new SafetensorsError(`${path}: the header has two tensors '${repeated}'`);
  const entries = new Map<string, SafetensorsEntry>();
  for (const [name, value] of Object.entries(header)) {
    if (name === '__metadata__') {
      if (!isMetadata(value)) throw new SafetensorsError(`${path}: __metadata__ is not an object of strings`);
      continue;
    }
    entries.set(name, parseEntry(path, name, value, dataBegin));
  }
  // Without gaps or overlaps, each byte belongs to one tensor.
  let end = dataBegin;
  for (const [name, entry] of [...entries].sort(([, a], [, b]) => a.begin - b.begin || a.bytes - b.bytes)) {
    if (entry.begin !== end) {
      throw new SafetensorsError(
        `${path}: tensor '${name}' begins at byte ${entry.begin}, the one before it ends at ${end}`,
      );
    }
    end += entry.bytes;
  }
  if (end !== fileBytes)
    throw new SafetensorsError(`${path}: the tensors end at byte ${end}, the file at ${fileBytes}`);
  return entries;
}

function parseEntry(path: string, name: string, value: unknown, dataBegin: number): SafetensorsEntry {
  const fail = (what: string) => new SafetensorsError(`${path}: tensor '${name}': ${what}`);
  const { dtype, shape, data_offsets: offsets } = (value ?? {}) as Record<string, unknown>;
  if (typeof dtype !== 'string' || !Object.hasOwn(dtypeBytes, dtype)) {
    throw fail(`dtype ${JSON.stringify(dtype)} is none of ${Object.keys(dtypeBytes).join(', ')}`);
  }
  if (!isSizes(shape)) throw fail(`shape ${JSON.stringify(shape)} is not a list of sizes`);
  if (!isSizes(offsets) || offsets.length !== 2)
    throw fail(`data_offsets ${JSON.stringify(offsets)} are not two offsets`);
  const [begin, end] = offsets as [number, number];
  const expected = shape.reduce((product, size) => product * size, dtypeBytes[dtype as SafetensorsDtype]);
  if (end - begin !== expected)
    throw fail(`${dtype} (${shape}) takes ${expected} bytes, data_offsets span ${end - begin}`);
  return { dtype: dtype as SafetensorsDtype, shape, begin: dataBegin + begin, bytes: expected };
}

/** The first key that a JSON object has twice, which JSON.parse would pass over; null: none. */
function repeatedKey(json: string): string | null {
  const keys = new Set<string>();
  let depth = 0;
  for (const [token, , key] of json.matchAll(/[{}[\]]|("(?:[^"\\]|\\.)*")(\s*:)?/g)) {
    if (token === '{' || token === '[') depth += 1;
    else if (token === '}' || token === ']') depth -= 1;
    else if (depth === 1 && key !== undefined) {
      const name = JSON.parse(token.slice(0, -key.length)) as string;
      if (keys.has(name)) return name;
      keys.add(name);
    }
  }
  return null;
}

function isMetadata(value: unknown): boolean {
  return (
    typeof value === 'object' &&
    value !== null &&
    !Array.isArray(value) &&
    Object.values(value).every((entry) => typeof entry === 'string')
  );
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && size >= 0);
}

/** What is written for one tensor. */
export interface TensorToWrite {
  name: string;
  dtype: SafetensorsDtype;
  shape: readonly number[];
  /** Called when its turn comes: the bytes, whole or in pieces. */
  data(): Promise<Uint8Array> | Uint8Array | AsyncIterable<Uint8Array>;
}

/** Writes to a temporary name beside `path`, and renames: a kill leaves the old file or the new one. */
export async function writeSafetensors(path: string, tensors: readonly TensorToWrite[]): Promise<void> {
  // Without a prototype, so that any name is a key.
  const header: Record<string, unknown> = Object.assign(Object.create(null), { __metadata__: { format: 'pt' } });
  let offset = 0;
  const sizes = tensors.map(({ name, dtype, shape }) => {
    if (name in header) throw new SafetensorsError(`${path}: two tensors are named '${name}'`);
    if (!isSizes(shape)) throw new SafetensorsError(`${path}: tensor '${name}': shape (${shape}) is no list of sizes`);
    const bytes = shape.reduce((product, size) => product * size, dtypeBytes[dtype]);
    header[name] = { dtype, shape, data_offsets: [offset, offset + bytes] };
    offset += bytes;
    return bytes;
  });
  const json = new TextEncoder().encode(JSON.stringify(header));
  const padded = new Uint8Array(Math.ceil(json.length / ALIGNMENT) * ALIGNMENT).fill(0x20);
  padded.set(json);
  const length = new Uint8Array(LENGTH_BYTES);
  new DataView(length.buffer).setBigUint64(0, BigInt(padded.length), true);

  const temporary = `${path}.${process.pid}.tmp`;
  const handle = await open(temporary, 'w');
  try {
    await writeFully(handle, length);
    await writeFully(handle, padded);
    for (const [i, tensor] of tensors.entries()) {
      let written = 0;
      for await (const bytes of piecesOf(await tensor.data())) {
        await writeFully(handle, bytes);
        written += bytes.length;
      }
      if (written !== sizes[i]) {
        throw new SafetensorsError(`${path}: tensor '${tensor.name}' takes ${sizes[i]} bytes, got ${written}`);
      }
    }
    await handle.sync();
    await handle.close();
    await rename(temporary, path);
  } catch (error) {
    await handle.close().catch(() => {});
    await unlink(temporary).catch(() => {});
    throw error;
  }
}

function piecesOf(data: Uint8Array | AsyncIterable<Uint8Array>): Iterable<Uint8Array> | AsyncIterable<Uint8Array> {
  return data instanceof Uint8Array ? [data] : data;
}

async function writeFully(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  let done = 0;
  while (done < bytes.length) {
    const { bytesWritten } = await handle.write(bytes, done, Math.min(bytes.length - done, 2 ** 30));
    done += bytesWritten;
  }
}
