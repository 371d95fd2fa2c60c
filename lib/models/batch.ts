// A batch of sequences, on the host and on a device.
import type { Device } from '../runtime/device.ts';
import { type Tensor, tensor } from '../runtime/tensor.ts';
import type { Tokens } from './blocks/forward.ts';

/** Token ids of B sequences of T on the host, flat: N = B·T. */
export interface HostBatch {
  /** (N,). */
  inputs: Int32Array | readonly number[];
  /** (N,): what follows each input; IGNORE_INDEX where it has no part in the loss. */
  targets: Int32Array | readonly number[];
  /** Length of one sequence. @default N: it is one sequence */
  T?: number;
  /** (N,): the row where each row's document begins; absent: each sequence is one document. */
  documentStart?: Int32Array | readonly number[] | null;
  /** Tokens of the longest sequence without its padding, which dynamic rope depends on. @default T */
  length?: number;
}

/** The same on a device. */
export interface Batch extends Tokens {
  /** (N,) int32. */
  targets: Tensor;
}

/** A copy of a batch on a device; the caller disposes its tensors. */
export function toDevice({ inputs, targets, documentStart, T, length }: HostBatch, device: Device): Batch {
  const ids = (data: Int32Array | readonly number[]) => tensor(data, { dtype: 'int32', device });
  return {
    inputs: ids(inputs),
    targets: ids(targets),
    T: T ?? inputs.length,
    length,
    documentStart: documentStart && ids(documentStart),
  };
}
