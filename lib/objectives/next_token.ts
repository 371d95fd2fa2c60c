// Next-token cross-entropy, with the head in chunks.
import type { Batch } from '../models/batch.ts';
import type { Decoder, ForwardOptions } from '../models/decoder.ts';
import type { StepPolicy } from '../models/policy.ts';
import { chunkedCrossEntropy } from '../ops/chunked_cross_entropy.ts';
import { type CrossEntropyOptions, type CrossEntropyResult, IGNORE_INDEX } from '../ops/loss_options.ts';
import { tidy } from '../runtime/scope.ts';
import type { Objective } from './objective.ts';

/** Soft-cap is the model's. */
export interface NextTokenLossOptions extends ForwardOptions, Omit<CrossEntropyOptions, 'softcap'> {
  policy: StepPolicy;
}

/** Cross-entropy of a batch's targets, a scalar with a gradient; the mean unless the options say otherwise. */
export function nextTokenLoss(
  model: Decoder,
  batch: Batch,
  { policy, dropout, ...options }: NextTokenLossOptions,
): CrossEntropyResult {
  return tidy(() => {
    const hidden = model.hidden(batch, policy, { dropout });
    return chunkedCrossEntropy(hidden, model.head, batch.targets, {
      ...options,
      ...model.headOptions(hidden, batch, { dropout }),
      chunkSize: policy.lossChunkSize,
    });
  });
}

/** The mean over all targets. @param options label smoothing and z-loss, as in crossEntropy. @default 0 */
export function nextToken(options: Pick<CrossEntropyOptions, 'labelSmoothing' | 'zLoss'> = {}): Objective {
  const { labelSmoothing, zLoss } = options;
  return {
    count({ targets }) {
      let count = 0;
      for (const target of targets) if (target !== IGNORE_INDEX) count += 1;
      return count;
    },
    loss: (model, batch, context) => nextTokenLoss(model, batch, { ...context, labelSmoothing, zLoss }).loss,
  };
}
