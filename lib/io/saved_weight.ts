// Checks a weight of the model that was saved with adapters.

import { dtypeBytes } from '../runtime/safetensors_dtype.ts';
import type { Tensor } from '../runtime/tensor.ts';
import { fromFile, toFile } from './elements.ts';
import { PIECE_BYTES, slice } from './pieces.ts';
import { SafetensorsError, type SafetensorsFile } from './safetensors.ts';

/** Throws unless the file's tensor equals the model's weight, up to rounding to the narrower dtype. */
export async function requireSameWeight(
  file: SafetensorsFile,
  name: string,
  of: string,
  weight: Tensor,
): Promise<void> {
  const { shape, dtype } = file.entries.get(name)!;
  const fail = (how: string) =>
    new SafetensorsError(
      `${file.path}: '${name}' differs from the model's '${of}': ${how}. Weights that were trained or resized with the adapters (modules_to_save) are not supported; merge them with PEFT first`,
    );
  if (shape.join() !== weight.shape.join()) throw fail(`it is (${shape}), the model's is (${weight.shape})`);
  const bytesEach = dtypeBytes[dtype];
  for await (const { begin, bytes } of file.pieces(name, PIECE_BYTES)) {
    const [first, end] = [begin / bytesEach, (begin + bytes.length) / bytesEach];
    const data = await slice(weight, first, end, (piece) => piece.data());
    if (isEqual(bytes, toFile(data, weight.dtype, dtype))) continue;
    const rounded = fromFile(name, bytes, dtype, weight.dtype);
    if (!isEqual(bytesOf(rounded), bytesOf(data))) throw fail('the values differ');
  }
}

const bytesOf = ({ buffer, byteOffset, byteLength }: ArrayBufferView) =>
  Buffer.from(buffer as ArrayBuffer, byteOffset, byteLength);

const isEqual = (a: Uint8Array, b: Uint8Array) => bytesOf(a).equals(b);
