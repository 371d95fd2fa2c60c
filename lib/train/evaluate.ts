// Loss over a validation set, without gradients.

import { noGrad } from '../autograd/tape.ts';
import type { Dataset } from '../data/dataset.ts';
import { toDevice } from '../models/batch.ts';
import type { Decoder } from '../models/decoder.ts';
import type { StepPolicy } from '../models/policy.ts';
import { sequencePart } from '../models/sequence_part.ts';
import { nextToken } from '../objectives/next_token.ts';
import type { SequenceRanks } from '../ops/head_exchange.ts';
import { tidy } from '../runtime/scope.ts';
import type { RunRanks } from './run_ranks.ts';

export interface Evaluation {
  /** Mean over all targets. */
  validationLoss: number;
  /** exp of it. */
  perplexity: number;
}

export interface EvaluateOptions {
  policy: StepPolicy;
  batchSize: number;
  /** Stops between two batches; the result is then null. */
  signal?: AbortSignal;
  /**
   * Where ranks share sequences: those of this one, which of such parts of the ranks they are, and all ranks. All call it without a signal; each
   * part takes batches in turns, and all get the result of all. @default null
   */
  shared?: { sequence: SequenceRanks; part: { rank: number; size: number }; ranks: RunRanks } | null;
}

export async function evaluate(
  model: Decoder,
  dataset: Dataset,
  { policy, batchSize, signal, shared = null }: EvaluateOptions,
): Promise<Evaluation | null> {
  const { rank, size } = shared?.part ?? { rank: 0, size: 1 };
  const objective = nextToken();
  let sum = 0;
  let numTargets = 0;
  for (let begin = rank * batchSize; begin < dataset.length; begin += batchSize * size) {
    if (signal?.aborted) return null;
    const count = Math.min(batchSize, dataset.length - begin);
    const whole = await dataset.batch(Array.from({ length: count }, (_, i) => begin + i));
    const batch = shared ? sequencePart(whole, shared.sequence) : whole;
    const lossOf = () => objective.loss(model, toDevice(batch, model.device), { policy, divisor: 1 });
    const loss = noGrad(() => tidy(lossOf));
    sum += await loss.item();
    loss.dispose();
    numTargets += objective.count(batch);
  }
  if (shared) {
    const all = await shared.ranks.gather({ sum, numTargets });
    sum = all.reduce((total, each) => total + each.sum, 0);
    numTargets = all.reduce((total, each) => total + each.numTargets, 0);
  }
  const validationLoss = sum / Math.max(numTargets, 1);
  return { validationLoss, perplexity: Math.exp(validationLoss) };
}
