// Softmax cross-entropy of given logits. For training, chunkedCrossEntropy needs a fraction of the memory.

import { operation } from '../autograd/tape.ts';
import { computeDtype } from '../runtime/dtype.ts';
import { kernels } from '../runtime/native.ts';
import { empty, type Tensor } from '../runtime/tensor.ts';
import { requireFloat, requireOneDevice, rowsAndCols } from './check.ts';
import {
  type CrossEntropyOptions,
  type CrossEntropyResult,
  checkOptions,
  lossResult,
  reduceLosses,
  tokenOutputs,
} from './loss_options.ts';

/**
 * Cross-entropy of logits (N,V) and targets (N,).
 * @param logits (…,V), floating. The backward overwrites them with their gradient unless another tensor shares their memory.
 * @param targets int32 of N elements. If one is neither in [0, V) nor ignoreIndex, every read of the results rejects with row, target and V
 */
export function crossEntropy(logits: Tensor, targets: Tensor, options: CrossEntropyOptions = {}): CrossEntropyResult {
  const op = 'crossEntropy';
  requireOneDevice(op, { logits, targets, tokenWeights: options.tokenWeights });
  requireFloat(op, 'logits', logits);
  const [N] = rowsAndCols(logits);
  const checked = checkOptions(op, N, targets, logits.dtype, options);
  const { kernel, tokenWeights, factor } = checked;
  const outputs = tokenOutputs(logits, N, options.perToken);
  const loss = operation({
    name: op,
    inputs: { logits },
    saved: { logits, targets, tokenWeights },
    savesMore: true,
    forward() {
      kernels.cross_entropy(logits, { ids: targets.reshape([N]), weights: tokenWeights }, outputs, kernel, 0, false);
      const { loss, divisor } = reduceLosses(outputs.losses, targets, checked);
      return { output: loss, more: { divisor } };
    },
    backward(dloss, { logits, targets, tokenWeights, divisor }, gradients) {
      const dlogits = logits.isShared
        ? empty(logits.shape, { dtype: logits.dtype, device: logits.device, category: 'activation' })
        : logits;
      if (dlogits !== logits) kernels.cast(logits, dlogits);
      const losses = empty([N], { dtype: computeDtype(logits.dtype), device: logits.device, category: 'workspace' });
      const unused = { losses, lse: null, logProbability: null, entropy: null, correct: null };
      kernels.cross_entropy(dlogits, { ids: targets.reshape([N]), weights: tokenWeights }, unused, kernel, 0, true);
      if (!gradients.isOne(dloss) || divisor) kernels.scale_by(dlogits, dloss, divisor, dlogits);
      if (factor !== 1) kernels.scale(dlogits, dlogits, factor);
      return { logits: dlogits };
    },
  });
  return lossResult(loss, outputs, options.perToken);
}
