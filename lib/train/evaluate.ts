// Loss over a validation set, without gradients.

import { noGrad } from '../autograd/tape.ts';
import type { Dataset, TokenBatch } from '../data/dataset.ts';
import type { Batch, Decoder } from '../models/decoder.ts';
import type { StepPolicy } from '../models/policy.ts';
import { tidy } from '../runtime/scope.ts';
import { tensor } from '../runtime/tensor.ts';

export interface Evaluation {
  /** Mean over all targets. */
  validationLoss: number;
  /** exp of it. */
  perplexity: number;
}

/** @param signal stops between two batches; the result is then null */
export async function evaluate(
  model: Decoder,
  dataset: Dataset,
  { policy, batchSize, signal }: { policy: StepPolicy; batchSize: number; signal?: AbortSignal },
): Promise<Evaluation | null> {
  let sum = 0;
  let numTargets = 0;
  for (let begin = 0; begin < dataset.length; begin += batchSize) {
    if (signal?.aborted) return null;
    const count = Math.min(batchSize, dataset.length - begin);
    const batch = await dataset.batch(Array.from({ length: count }, (_, i) => begin + i));
    const loss = noGrad(() => tidy(() => model.loss(toDevice(batch, model.device), policy, { divisor: 1 }).loss));
    sum += await loss.item();
    loss.dispose();
    numTargets += batch.numTargets;
  }
  const validationLoss = sum / Math.max(numTargets, 1);
  return { validationLoss, perplexity: Math.exp(validationLoss) };
}

/** A batch on the model's device. */
export function toDevice({ inputs, targets, documentStart, T, length }: TokenBatch, device: Decoder['device']): Batch {
  return {
    inputs: tensor(inputs, { device }),
    targets: tensor(targets, { device }),
    T,
    length,
    documentStart: documentStart && tensor(documentStart, { device }),
  };
}
