// A batch of token sequences, on the host or on a device.
import type { Device } from '../runtime/device.ts';
import { type Tensor, tensor } from '../runtime/tensor.ts';
import type { SharedSequences, Tokens } from './blocks/forward.ts';

/** Token ids of B sequences of T on the host, flat: N = B·T. */
export interface HostBatch {
  /** (N,). */
  inputs: Int32Array | readonly number[];
  /** (N,): the token after each input; IGNORE_INDEX if the loss ignores it. */
  targets: Int32Array | readonly number[];
  /** Length T of a sequence. @default N, one sequence */
  T?: number;
  /** (N,): the first row of each row's document. If absent, each sequence is one document. */
  documentStart?: Int32Array | readonly number[] | null;
  /** Length of the longest sequence without padding; dynamic rope depends on it. @default T */
  length?: number;
  /** Whether it only stands in for a micro-batch that this rank has none of: it has no targets, and no number in its step. @default false */
  standsIn?: boolean;
  /** Of a part of a batch, as `sequencePart` makes it: the ranks that have the rest. @default null */
  sequence?: SharedSequences<Int32Array> | null;
}

/** A batch on a device. */
export interface Batch extends Tokens {
  /** (N,) int32. */
  targets: Tensor;
}

/** Copies a batch to a device. The caller disposes the tensors. */
export function toDevice(
  { inputs, targets, documentStart, T, length, sequence = null }: HostBatch,
  device: Device,
): Batch {
  const ids = (data: Int32Array | readonly number[]) => tensor(data, { dtype: 'int32', device });
  return {
    inputs: ids(inputs),
    targets: ids(targets),
    T: T ?? inputs.length,
    length,
    documentStart: documentStart && ids(documentStart),
    sequence: sequence && { ...sequence, documentStart: sequence.documentStart && ids(sequence.documentStart) },
  };
}
