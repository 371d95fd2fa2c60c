// Writes parameters to files whose dtype may be wider than the parameters'.
import type { Parameter } from '../autograd/parameter.ts';
import { dtypes, toBfloat16, toFloat32 } from '../runtime/dtype.ts';
import type { SafetensorsDtype } from '../runtime/safetensors_dtype.ts';
import type { Tensor } from '../runtime/tensor.ts';
import { bytesOf, holds, toFile } from './elements.ts';
import { PIECE_BYTES, slice } from './pieces.ts';
import { StoredTensor } from './stored_tensor.ts';

/** Called if stored values can no longer be read. Saving continues with the rounded values, so that what was trained is not lost. */
export type OnLost = (error: Error) => void;

/** A parameter's bytes in a file's dtype, in pieces. If that is wider, takes values of the master copy, and stored ones if unchanged. */
export async function* elementsOf(
  parameter: Parameter,
  to: SafetensorsDtype,
  onLost: OnLost,
): AsyncGenerator<Uint8Array> {
  const count = PIECE_BYTES / dtypes.float64.bytes;
  const made = holds(parameter.dtype, to) ? null : await parameter.readMaster?.();
  try {
    for (let begin = 0; begin < parameter.size; begin += count) {
      const range = { begin, end: Math.min(begin + count, parameter.size), master: made ?? parameter.master };
      yield await pieceOf(parameter, to, range, onLost);
    }
  } finally {
    made?.dispose();
  }
}

async function pieceOf(
  parameter: Parameter,
  to: SafetensorsDtype,
  { begin, end, master }: { begin: number; end: number; master: Tensor | null },
  onLost: OnLost,
): Promise<Uint8Array> {
  const read = (tensor: Tensor) => slice(tensor, begin, end, (piece) => piece.data());
  let data = await read(parameter);
  let { dtype } = parameter;
  const { stored } = parameter;
  if (holds(dtype, to)) return toFile(data, dtype, to);
  if (master && data instanceof Uint16Array) {
    data = unrounded(data, (await read(master)) as Float32Array);
    dtype = 'float32';
  }
  const bytes = toFile(data, dtype, to);
  if (stored instanceof StoredTensor && !holds(dtype, to)) {
    await stored.restore(bytesOf(data), dtype, { bytes, to, begin }).catch(onLost);
  }
  return bytes;
}

/** The master's values, except where the parameter is not their rounded value because someone has written to it. */
function unrounded(words: Uint16Array, master: Float32Array): Float32Array {
  const rounded = toBfloat16(master);
  const own = toFloat32(words);
  return master.map((value, i) => (rounded[i] === words[i] ? value : own[i]!));
}

/** Warns once. */
export function warnOnce(op: string): OnLost {
  let hasWarned = false;
  return ({ message }) => {
    if (!hasWarned) {
      process.emitWarning(
        `${op}: untrained weights are written in the model's dtype, because the original values cannot be read: ${message}`,
        {
          code: 'MINISEQUENCE_STORED_LOST',
        },
      );
    }
    hasWarned = true;
  };
}
