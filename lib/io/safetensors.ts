// The safetensors format: the header's length in 8 bytes (little-endian), a JSON header, then the tensors' bytes without gaps.
// https://huggingface.co/docs/safetensors
import { close, closeSync, fstat, open, read, readSync } from 'node:fs';
import { promisify } from 'node:util';
import { dtypeBytes, type SafetensorsDtype } from '../runtime/safetensors_dtype.ts';
import { roundUp } from '../runtime/shape.ts';
import { describeOther } from './other_files.ts';
import {
  isSizes,
  parseHeader,
  type SafetensorsEntry,
  SafetensorsError,
  type SafetensorsHeader,
} from './safetensors_header.ts';
import { type StagedFile, stageFile, writeFully } from './whole_file.ts';

export { type SafetensorsEntry, SafetensorsError } from './safetensors_header.ts';

/** Size limit of the header. */
const MAX_HEADER_BYTES = 100 * 2 ** 20;
const LENGTH_BYTES = 8;
const ALIGNMENT = 8;

const [openFile, statFile, readFile, closeFile] = [
  promisify(open),
  promisify(fstat),
  promisify(read),
  promisify(close),
];

/** Closes files of models that were garbage-collected without dispose(); a lost FileHandle would end the process. */
const lost = new FinalizationRegistry((descriptor: number) => closeSync(descriptor));

/** An open safetensors file. */
export class SafetensorsFile {
  readonly path: string;
  readonly entries: ReadonlyMap<string, SafetensorsEntry>;
  /** What the header says besides. */
  readonly metadata: ReadonlyMap<string, string>;
  readonly #descriptor: number;
  #isClosed = false;
  /** Reads in progress. */
  #numReads = 0;

  private constructor(path: string, descriptor: number, { entries, metadata }: SafetensorsHeader) {
    this.path = path;
    this.#descriptor = descriptor;
    this.entries = entries;
    this.metadata = metadata;
    lost.register(this, descriptor, this);
  }

  /** Reads and checks the header. The caller closes the file. */
  static async open(path: string): Promise<SafetensorsFile> {
    const descriptor = await openFile(path, 'r');
    try {
      const found = await statFile(descriptor);
      if (!found.isFile()) throw new SafetensorsError(`${path}: is not a file`);
      const { size } = found;
      return new SafetensorsFile(path, descriptor, parseHeader(path, await readHeader(path, descriptor, size), size));
    } catch (error) {
      await closeFile(descriptor);
      throw error;
    }
  }

  /** The bytes of one tensor. */
  async read(name: string): Promise<Uint8Array> {
    return this.readRange(name, 0, this.#entry(name).bytes);
  }

  /** Bytes [begin, end) of one tensor. */
  async readRange(name: string, begin: number, end: number): Promise<Uint8Array> {
    const { begin: first } = this.#entry(name);
    const bytes = new Uint8Array(end - begin);
    this.#numReads += 1;
    try {
      await readFully(this.path, this.#descriptor, bytes, first + begin);
      return bytes;
    } finally {
      this.#numReads -= 1;
      if (this.#isClosed) await this.#closeWhenIdle();
    }
  }

  /** The same, synchronously. */
  readRangeSync(name: string, begin: number, end: number): Uint8Array {
    const { begin: first } = this.#entry(name);
    const bytes = new Uint8Array(end - begin);
    for (let done = 0; done < bytes.length; ) {
      const bytesRead = readSync(this.#descriptor, bytes, done, bytes.length - done, first + begin + done);
      if (bytesRead === 0) throw endsEarly(this.path, bytes.length - done);
      done += bytesRead;
    }
    return bytes;
  }

  /** The bytes of one tensor in pieces of at most `pieceBytes`, with the offset of each within the tensor. */
  async *pieces(name: string, pieceBytes: number): AsyncGenerator<{ begin: number; bytes: Uint8Array }> {
    const { bytes: size } = this.#entry(name);
    for (let begin = 0; begin < size; begin += pieceBytes) {
      yield { begin, bytes: await this.readRange(name, begin, Math.min(begin + pieceBytes, size)) };
    }
  }

  #entry(name: string): SafetensorsEntry {
    if (this.#isClosed) throw new SafetensorsError(`${this.path}: was closed`);
    const entry = this.entries.get(name);
    if (!entry) throw new SafetensorsError(`${this.path}: has no tensor '${name}'`);
    return entry;
  }

  /** Closes the file. Calling it again does nothing. */
  async close(): Promise<void> {
    if (this.#isClosed) return;
    this.#isClosed = true;
    lost.unregister(this);
    await this.#closeWhenIdle();
  }

  /** Waits for reads in progress: the descriptor must not be reused for another file before they end. */
  async #closeWhenIdle(): Promise<void> {
    if (this.#numReads === 0) await closeFile(this.#descriptor);
  }
}

async function readFully(path: string, descriptor: number, into: Uint8Array, begin: number): Promise<void> {
  let done = 0;
  while (done < into.length) {
    const { bytesRead } = await readFile(descriptor, into, done, Math.min(into.length - done, 2 ** 30), begin + done);
    if (bytesRead === 0) throw endsEarly(path, into.length - done);
    done += bytesRead;
  }
}

function endsEarly(path: string, bytes: number): SafetensorsError {
  return new SafetensorsError(`${path}: ends ${bytes} bytes early`);
}

/** The header's JSON text, and the offset of the tensors' bytes. */
async function readHeader(
  path: string,
  descriptor: number,
  fileBytes: number,
): Promise<{ text: string; dataBegin: number }> {
  if (fileBytes < LENGTH_BYTES)
    throw new SafetensorsError(`${path}: is not a safetensors file: it has only ${fileBytes} bytes`);
  const prefix = new Uint8Array(LENGTH_BYTES);
  await readFully(path, descriptor, prefix, 0);
  const length = new DataView(prefix.buffer).getBigUint64(0, true);
  if (length > BigInt(MAX_HEADER_BYTES)) {
    const begin = new Uint8Array(Math.min(fileBytes, 32));
    await readFully(path, descriptor, begin, 0);
    const other = describeOther(String.fromCharCode(...begin));
    if (other) throw new SafetensorsError(`${path}: is ${other}`);
    throw new SafetensorsError(`${path}: header of ${length} bytes is over the limit of ${MAX_HEADER_BYTES}`);
  }
  const dataBegin = LENGTH_BYTES + Number(length);
  if (dataBegin > fileBytes)
    throw new SafetensorsError(
      `${path}: the header takes ${length} bytes, but the file has ${fileBytes}: is it cut short?`,
    );
  const bytes = new Uint8Array(Number(length));
  await readFully(path, descriptor, bytes, LENGTH_BYTES);
  try {
    return { text: new TextDecoder('utf-8', { fatal: true }).decode(bytes), dataBegin };
  } catch {
    throw new SafetensorsError(`${path}: the header is not UTF-8`);
  }
}

/** One tensor to write. */
export interface TensorToWrite {
  name: string;
  dtype: SafetensorsDtype;
  shape: readonly number[];
  /** Returns the bytes, whole or in pieces. Called when the tensor is written. */
  data(): Promise<Uint8Array> | Uint8Array | AsyncIterable<Uint8Array>;
}

/**
 * Writes a file atomically: if the process is killed, there is the old file or the new one.
 * @param metadata of the header, besides `format`
 */
export async function writeSafetensors(
  path: string,
  tensors: readonly TensorToWrite[],
  metadata: Readonly<Record<string, string>> = {},
): Promise<void> {
  const staged = await stageSafetensors(path, tensors, metadata);
  await staged.commit();
}

/** Writes and syncs a file under a temporary name; `commit` renames it. */
export async function stageSafetensors(
  path: string,
  tensors: readonly TensorToWrite[],
  metadata: Readonly<Record<string, string>> = {},
): Promise<StagedFile> {
  // No prototype, so that any name can be a key.
  const header: Record<string, unknown> = Object.assign(Object.create(null), {
    __metadata__: { format: 'pt', ...metadata },
  });
  let offset = 0;
  const sizes = tensors.map(({ name, dtype, shape }) => {
    if (name === '__metadata__') throw new SafetensorsError(`${path}: no tensor can be named '${name}'`);
    if (name in header) throw new SafetensorsError(`${path}: two tensors are named '${name}'`);
    if (!isSizes(shape))
      throw new SafetensorsError(`${path}: tensor '${name}': shape (${shape}) is not a list of sizes`);
    const bytes = shape.reduce((product, size) => product * size, dtypeBytes[dtype]);
    header[name] = { dtype, shape, data_offsets: [offset, offset + bytes] };
    offset += bytes;
    return bytes;
  });
  const json = new TextEncoder().encode(JSON.stringify(header));
  const padded = new Uint8Array(roundUp(json.length, ALIGNMENT)).fill(0x20);
  padded.set(json);
  const length = new Uint8Array(LENGTH_BYTES);
  new DataView(length.buffer).setBigUint64(0, BigInt(padded.length), true);
  return stageFile(path, async (handle) => {
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
  });
}

function piecesOf(data: Uint8Array | AsyncIterable<Uint8Array>): Iterable<Uint8Array> | AsyncIterable<Uint8Array> {
  return data instanceof Uint8Array ? [data] : data;
}
