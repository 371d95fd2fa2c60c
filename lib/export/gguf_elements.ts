// Types of the tensors in a GGUF file, and elements in them.
import { toFile } from '../io/elements.ts';
import { toBfloat16 } from '../runtime/dtype.ts';

/** What `--type` chooses from: the type of matrices. */
export const exportTypes = ['f32', 'f16', 'bf16', 'q8_0'] as const;
export type ExportType = (typeof exportTypes)[number];

/** Elements of a block of q8_0: one scale in half precision and as many signed bytes. */
const BLOCK = 32;
const BLOCK_BYTES = 2 + BLOCK;

/** Numbers of the format for types of tensors, and for a file of mostly such tensors. */
export const ggufTypes: Record<ExportType, { tensor: number; file: number }> = {
  f32: { tensor: 0, file: 0 },
  f16: { tensor: 1, file: 1 },
  bf16: { tensor: 30, file: 32 },
  q8_0: { tensor: 8, file: 7 },
};

/** The type of a tensor in a file of such a type: vectors stay in f32, and rows that are no whole blocks are in f16 instead of q8_0. */
export function typeOf(shape: readonly number[], type: ExportType): ExportType {
  if (shape.length < 2) return 'f32';
  return type === 'q8_0' && shape.at(-1)! % BLOCK !== 0 ? 'f16' : type;
}

/** Bytes of so many elements, a multiple of the row's length. */
export function bytesIn(type: ExportType, elements: number): number {
  if (type === 'q8_0') return (elements / BLOCK) * BLOCK_BYTES;
  return elements * (type === 'f32' ? 4 : 2);
}

/** Elements in a type, rounded to nearest. f16 has no numbers beyond 65,504: they become infinite, as in PyTorch. */
export function encoded(values: Float32Array, type: ExportType): Uint8Array {
  if (type === 'q8_0') return quantised(values);
  const data = type === 'bf16' ? toBfloat16(values) : values;
  if (type === 'f16') return toFile(values, 'float32', 'F16');
  return new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
}

/** Blocks of a scale d = max|x| / 127 in half precision and of bytes round(x / d), ties away from zero. */
function quantised(values: Float32Array): Uint8Array {
  const blocks = values.length / BLOCK;
  const bytes = new Uint8Array(blocks * BLOCK_BYTES);
  const scales = new Float32Array(blocks);
  for (let block = 0; block < blocks; block++) {
    const begin = block * BLOCK;
    let largest = 0;
    for (let i = begin; i < begin + BLOCK; i++) largest = Math.max(largest, Math.abs(values[i]!));
    scales[block] = largest / 127;
    const inverse = scales[block] === 0 ? 0 : Math.fround(1 / scales[block]!);
    for (let i = 0; i < BLOCK; i++) {
      const scaled = Math.fround(values[begin + i]! * inverse);
      bytes[block * BLOCK_BYTES + 2 + i] = Math.sign(scaled) * Math.round(Math.abs(scaled));
    }
  }
  const halves = toFile(scales, 'float32', 'F16');
  for (let block = 0; block < blocks; block++)
    bytes.set(halves.subarray(2 * block, 2 * block + 2), block * BLOCK_BYTES);
  return bytes;
}
