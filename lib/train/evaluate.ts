// Loss over a validation set, without gradients.

import { noGrad } from '../autograd/tape.ts';
import type { Dataset } from '../data/dataset.ts';
import { toDevice } from '../models/batch.ts';
import type { Decoder } from '../models/decoder.ts';
import type { StepPolicy } from '../models/policy.ts';
import { nextToken } from '../objectives/next_token.ts';
import { tidy } from '../runtime/scope.ts';

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
  const objective = nextToken();
  let sum = 0;
  let numTargets = 0;
  for (let begin = 0; begin < dataset.length; begin += batchSize) {
    if (signal?.aborted) return null;
    const count = Math.min(batchSize, dataset.length - begin);
    const batch = await dataset.batch(Array.from({ length: count }, (_, i) => begin + i));
    const lossOf = () => objective.loss(model, toDevice(batch, model.device), { policy, divisor: 1 });
    const loss = noGrad(() => tidy(lossOf));
    sum += await loss.item();
    loss.dispose();
    numTargets += objective.count(batch);
  }
  const validationLoss = sum / Math.max(numTargets, 1);
  return { validationLoss, perplexity: Math.exp(validationLoss) };
}
