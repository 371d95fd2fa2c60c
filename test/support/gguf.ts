// Reads GGUF files by the format's description, for tests.
import { readFileSync } from 'node:fs';

export interface ReadGguf {
  metadata: Map<string, unknown>;
  /** Sizes in the file's order: a row's length first. */
  tensors: Map<string, { sizes: number[]; type: number; begin: number }>;
  bytes: Buffer;
}

export function readGguf(path: string): ReadGguf {
  const bytes = readFileSync(path);
  let at = 0;
  /** Where the next value of so many bytes begins. */
  const next = (length: number) => {
    at += length;
    return at - length;
  };
  const uint32 = () => bytes.readUInt32LE(next(4));
  const uint64 = () => Number(bytes.readBigUInt64LE(next(8)));
  const text = () => {
    const length = uint64();
    const begin = next(length);
    return bytes.toString('utf8', begin, begin + length);
  };
  const value = (type: number): unknown => {
    if (type === 4) return uint32();
    if (type === 5) return bytes.readInt32LE(next(4));
    if (type === 6) return bytes.readFloatLE(next(4));
    if (type === 7) return bytes.readUInt8(next(1)) === 1;
    if (type === 8) return text();
    if (type !== 9) throw new Error(`type ${type}`);
    const of = uint32();
    return Array.from({ length: uint64() }, () => value(of));
  };
  if (bytes.toString('latin1', 0, 4) !== 'GGUF') throw new Error('no GGUF');
  at = 4;
  const version = uint32();
  if (version !== 3) throw new Error(`version ${version}`);
  const [numTensors, numKeys] = [uint64(), uint64()];
  const metadata = new Map(Array.from({ length: numKeys }, () => [text(), value(uint32())] as const));
  const found = Array.from({ length: numTensors }, () => {
    const name = text();
    const sizes = Array.from({ length: uint32() }, uint64);
    return { name, sizes, type: uint32(), offset: uint64() };
  });
  const first = Math.ceil(at / 32) * 32;
  const tensors = new Map(found.map(({ name, sizes, type, offset }) => [name, { sizes, type, begin: first + offset }]));
  return { metadata, tensors, bytes };
}

/** The elements of a tensor. */
export function elementsOf({ tensors, bytes }: ReadGguf, name: string): number[] {
  const { sizes, type, begin } = tensors.get(name)!;
  const length = sizes.reduce((product, size) => product * size, 1);
  const half = (at: number) => {
    const word = bytes.readUInt16LE(at);
    const [exponent, fraction] = [(word >> 10) & 31, word & 1023];
    const size = exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15);
    return word >> 15 ? -size : size;
  };
  return Array.from({ length }, (_, i) => {
    if (type === 0) return bytes.readFloatLE(begin + 4 * i);
    if (type === 1) return half(begin + 2 * i);
    if (type === 30) return new Float32Array(Uint32Array.of(bytes.readUInt16LE(begin + 2 * i) << 16).buffer)[0]!;
    const block = begin + 34 * Math.floor(i / 32);
    return half(block) * bytes.readInt8(block + 2 + (i % 32));
  });
}
