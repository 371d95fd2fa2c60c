// The objective that training minimises.
import type { Batch, HostBatch } from '../models/batch.ts';
import type { Decoder, ForwardOptions } from '../models/decoder.ts';
import type { StepPolicy } from '../models/policy.ts';
import type { Tensor } from '../runtime/tensor.ts';

export interface LossOptions extends ForwardOptions {
  policy: StepPolicy;
  /** The sum over this batch is divided by this: the count of all micro-batches of the step together. */
  divisor: number;
}

/** A mean over the items of batches, such as target tokens. */
export interface Objective {
  /** Number of items in a batch. */
  count(batch: HostBatch): number;
  /** Sum over the batch, divided by `divisor`: a scalar with a gradient. */
  loss(model: Decoder, batch: Batch, options: LossOptions): Tensor;
}
