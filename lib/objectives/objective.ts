// What training minimises.
import type { Batch, HostBatch } from '../models/batch.ts';
import type { Decoder, ForwardOptions } from '../models/decoder.ts';
import type { StepPolicy } from '../models/policy.ts';
import type { Tensor } from '../runtime/tensor.ts';

export interface LossOptions extends ForwardOptions {
  policy: StepPolicy;
  /** What the sum over this batch is divided by: what all micro-batches of a step count together. */
  divisor: number;
}

/** A mean over what batches hold: targets for next tokens, pairs for preferences. */
export interface Objective {
  /** How many of these a batch holds. */
  count(batch: HostBatch): number;
  /** Sum over the batch, divided by `divisor`: a scalar with a gradient. */
  loss(model: Decoder, batch: Batch, options: LossOptions): Tensor;
}
