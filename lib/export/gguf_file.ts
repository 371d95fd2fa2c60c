// Writes files in the GGUF format, version 3, little-endian: a header, key-value pairs, descriptions of the tensors, then their bytes
// (the format's description: docs/gguf.md in the repository of ggml).
import type { FileHandle } from 'node:fs/promises';
import { writeFully, writeWhole } from '../io/whole_file.ts';
import { roundUp } from '../runtime/shape.ts';

const MAGIC = 0x4655_4747; // 'GGUF' as it stands in the file
const VERSION = 3;
/** Tensors begin at multiples of it. It is the format's default, so that no key has to say it. */
const ALIGNMENT = 32;

/** Numbers of the format for types of values. */
const VALUE_TYPES = { uint32: 4, int32: 5, float32: 6, bool: 7, string: 8, array: 9 } as const;

/** A value of a key. Numbers say how wide they are. */
export type GgufValue =
  | { type: 'uint32' | 'int32' | 'float32'; value: number }
  | { type: 'bool'; value: boolean }
  | { type: 'string'; value: string }
  | { type: 'array'; of: 'string'; value: readonly string[] }
  | { type: 'array'; of: 'int32' | 'float32'; value: readonly number[] };

export type GgufMetadata = ReadonlyMap<string, GgufValue>;

/** A tensor to write. */
export interface GgufTensor {
  name: string;
  /** Row-major, as everywhere here: the last size is that of a row. The file has the sizes in the other order. */
  shape: readonly number[];
  /** The format's number of its type; see `ggufTypes`. */
  type: number;
  bytes: number;
  /** Its bytes in pieces. Called when the tensor is written. */
  pieces(): AsyncIterable<Uint8Array>;
}

/**
 * Writes a file atomically, a piece of a tensor at a time. A failure, such as a full disk, leaves no file and an old one as it was.
 * @throws Error if two tensors have one name, or a tensor yields another number of bytes than it says
 */
export async function writeGguf(path: string, metadata: GgufMetadata, tensors: readonly GgufTensor[]): Promise<void> {
  const names = new Set<string>();
  for (const { name } of tensors) {
    if (names.has(name)) throw new Error(`${path}: two tensors are named '${name}'`);
    names.add(name);
  }
  await writeWhole(path, async (handle) => {
    const header = headerOf(metadata, tensors);
    await writeFully(handle, header);
    await pad(handle, header.length);
    for (const tensor of tensors) {
      let written = 0;
      for await (const piece of tensor.pieces()) {
        await writeFully(handle, piece);
        written += piece.length;
      }
      if (written !== tensor.bytes)
        throw new Error(`${path}: tensor '${tensor.name}' takes ${tensor.bytes} bytes, got ${written}`);
      await pad(handle, written);
    }
  });
}

const padded = (bytes: number) => roundUp(bytes, ALIGNMENT);

async function pad(handle: FileHandle, bytes: number): Promise<void> {
  await writeFully(handle, new Uint8Array(padded(bytes) - bytes));
}

function headerOf(metadata: GgufMetadata, tensors: readonly GgufTensor[]): Uint8Array {
  const bytes = new Bytes();
  bytes.uint32(MAGIC);
  bytes.uint32(VERSION);
  bytes.uint64(tensors.length);
  bytes.uint64(metadata.size);
  for (const [key, value] of metadata) {
    bytes.string(key);
    bytes.uint32(VALUE_TYPES[value.type]);
    if (value.type !== 'array') {
      bytes.value(value.type, value.value);
      continue;
    }
    bytes.uint32(VALUE_TYPES[value.of]);
    bytes.uint64(value.value.length);
    for (const one of value.value) bytes.value(value.of, one);
  }
  let offset = 0;
  for (const { name, shape, type, bytes: size } of tensors) {
    bytes.string(name);
    bytes.uint32(shape.length);
    for (const length of shape.toReversed()) bytes.uint64(length);
    bytes.uint32(type);
    bytes.uint64(offset);
    offset += padded(size);
  }
  return bytes.done();
}

/** Bytes that grow. */
class Bytes {
  #buffer = Buffer.alloc(2 ** 16);
  #length = 0;

  /** Where `count` bytes go. */
  #next(count: number): number {
    const at = this.#length;
    this.#length += count;
    if (this.#length > this.#buffer.length) {
      const larger = Buffer.alloc(Math.max(2 * this.#buffer.length, this.#length));
      larger.set(this.#buffer);
      this.#buffer = larger;
    }
    return at;
  }

  uint32(value: number): void {
    const at = this.#next(4);
    this.#buffer.writeUInt32LE(value, at);
  }

  uint64(value: number): void {
    const at = this.#next(8);
    this.#buffer.writeBigUInt64LE(BigInt(value), at);
  }

  string(text: string): void {
    const length = Buffer.byteLength(text);
    this.uint64(length);
    const at = this.#next(length);
    this.#buffer.write(text, at);
  }

  value(type: keyof typeof VALUE_TYPES, value: number | boolean | string): void {
    if (type === 'string') this.string(String(value));
    else if (type === 'bool') {
      const at = this.#next(1);
      this.#buffer.writeUInt8(value ? 1 : 0, at);
    } else {
      const at = this.#next(4);
      if (type === 'float32') this.#buffer.writeFloatLE(Number(value), at);
      else if (type === 'int32') this.#buffer.writeInt32LE(Number(value), at);
      else this.#buffer.writeUInt32LE(Number(value), at);
    }
  }

  done(): Uint8Array {
    return this.#buffer.subarray(0, this.#length);
  }
}
