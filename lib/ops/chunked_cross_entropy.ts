// Language-model head and cross-entropy over mini-sequences. The (N,V) logits exist for one chunk of M rows at a time, and the gradients
// are computed from them in the forward: 6·N·C·V operations, nothing is recomputed.

import { gradientDtypeOf } from '../autograd/parameter.ts';
import { operation } from '../autograd/tape.ts';
import { computeDtype } from '../runtime/dtype.ts';
import { kernels } from '../runtime/native.ts';
import { tidy } from '../runtime/scope.ts';
import { empty, type Tensor } from '../runtime/tensor.ts';
import {
  requireCount,
  requireDtype,
  requireFloat,
  requireOneDevice,
  requireRank,
  requireShape,
  rowsAndCols,
} from './check.ts';
import {
  type CrossEntropyOptions,
  type CrossEntropyResult,
  checkOptions,
  lossResult,
  reduceLosses,
  tokenOutputs,
} from './loss_options.ts';
import { defaultChunkSize, logitsWorkspace, matmulWorkspace } from './workspace.ts';

export interface ChunkedCrossEntropyOptions extends CrossEntropyOptions {
  /** Rows M of one chunk; the last may be shorter. @default at most C rounded up to a multiple of 1024, in chunks of near equal size */
  chunkSize?: number;
  /** A low-rank part of the head: logits = hidden · weightᵀ + low (N,r) · weight (V,r)ᵀ. */
  lowRank?: { low: Tensor; weight: Tensor } | null;
}

/**
 * Cross-entropy of hidden (N,C) · weightᵀ and targets (N,), without the (N,V) logits.
 * The forward already computes the gradients that are needed. Until the backward, the op holds dhidden (N,C) and dweight (V,C). dweight
 * has the dtype of the weight's gradient, f32 or bf16 (f64 for f64), and becomes the weight's `.grad` if there is none. A bf16 dweight is
 * summed over the chunks in f32 and rounded once. It is rounded a second time if the backward must scale it: for a mean without `divisor`,
 * or for a gradient of the loss other than 1.
 * @param hidden (…,C), read as rows (N,C)
 * @param weight (V,C), hidden's dtype; may be frozen or tied to the embedding
 * @param targets int32 of N elements. If one is neither in [0, V) nor ignoreIndex, every read of the results rejects with row, target and V
 */
export function chunkedCrossEntropy(
  hidden: Tensor,
  weight: Tensor,
  targets: Tensor,
  options: ChunkedCrossEntropyOptions = {},
): CrossEntropyResult {
  const op = 'chunkedCrossEntropy';
  requireOneDevice(op, { hidden, weight, targets, tokenWeights: options.tokenWeights });
  requireFloat(op, 'hidden', hidden);
  requireDtype(op, 'weight', weight, hidden.dtype);
  requireRank(op, 'weight', weight, 2);
  const [N, C] = rowsAndCols(hidden);
  const [V, weightC] = weight.shape as [number, number];
  if (C !== weightC)
    throw new RangeError(`${op}: hidden (${N},${C}) and weight (${V},${weightC}) disagree on the hidden size`);
  const checked = checkOptions(op, N, targets, hidden.dtype, options);
  const { chunkSize = defaultChunkSize(N, C) } = options;
  requireCount(op, 'chunkSize', chunkSize);
  const { lowRank = null } = options;
  const { low = null, weight: lowWeight = null } = lowRank ?? {};
  if (low && lowWeight) {
    requireOneDevice(op, { hidden, low, lowWeight });
    const r = low.shape.at(-1) ?? 0;
    requireShape(op, 'lowRank.low', low, [N, r]);
    requireShape(op, 'lowRank.weight', lowWeight, [V, r]);
    requireDtype(op, 'lowRank.low', low, hidden.dtype);
    requireDtype(op, 'lowRank.weight', lowWeight, hidden.dtype);
  }
  const { tokenWeights, factor } = checked;
  const M = Math.min(N, chunkSize);
  const { device, dtype } = hidden;
  const outputs = tokenOutputs(hidden, N, options.perToken);
  const loss = operation({
    name: op,
    inputs: { hidden, weight, low, lowWeight },
    saved: {},
    savesMore: true,
    forward: (recording) =>
      tidy(() => {
        const wants = (input: Tensor | null) => recording && input?.requiresGrad;
        const ofRows = (shape: readonly number[]) => empty(shape, { dtype, device, category: 'activation' });
        const dhidden = wants(hidden) ? ofRows([N, C]) : null;
        const dweight = wants(weight) ? sumFor(weight, N > M) : null;
        const dlow = low && wants(low) ? ofRows(low.shape) : null;
        const dlowWeight = lowWeight && wants(lowWeight) ? sumFor(lowWeight, N > M) : null;
        tidy(() =>
          kernels.chunked_cross_entropy(
            hidden,
            { weight, lowRank },
            { ids: targets.reshape([N]), weights: tokenWeights },
            outputs,
            { scale: factor, dhidden, dweight, dlow, dlowWeight },
            logitsWorkspace(device, M, V, dtype),
            matmulWorkspace(device),
            checked.kernel,
          ),
        );
        const { loss, divisor } = reduceLosses(outputs.losses, targets, checked);
        return {
          output: loss,
          more: {
            dhidden,
            dweight: dweight && rounded(dweight, weight),
            dlow,
            dlowWeight: dlowWeight && rounded(dlowWeight, lowWeight!),
            divisor,
          },
        };
      }),
    // The gradients exist; what remains is the factor dloss, and the divisor if only the device knows it.
    backward(dloss, { dhidden, dweight, dlow, dlowWeight, divisor }, gradients) {
      if (!gradients.isOne(dloss) || divisor) {
        for (const gradient of [dhidden, dweight, dlow, dlowWeight]) {
          if (gradient) kernels.scale_by(gradient, dloss, divisor, gradient);
        }
      }
      if (dweight) gradients.adopt('weight', dweight);
      if (dlowWeight) gradients.adopt('lowWeight', dlowWeight);
      return { hidden: dhidden, low: dlow };
    },
  });
  return lossResult(loss, outputs, options.perToken);
}

/** Memory for a weight's gradient; f32 for a bf16 gradient that is summed over several chunks. */
function sumFor(weight: Tensor, hasChunks: boolean): Tensor {
  const { shape, dtype, device } = weight;
  const gradientDtype = gradientDtypeOf(weight);
  const isRounded = hasChunks && gradientDtype === 'bfloat16';
  return isRounded
    ? empty(shape, { dtype: computeDtype(dtype), device, category: 'workspace' })
    : empty(shape, { dtype: gradientDtype, device, category: 'gradient' });
}

/** The weight's gradient from a tensor of sumFor(), rounded if necessary. */
function rounded(sum: Tensor, weight: Tensor): Tensor {
  const { shape, device } = weight;
  const gradientDtype = gradientDtypeOf(weight);
  if (sum.dtype === gradientDtype) return sum;
  const gradient = empty(shape, { dtype: gradientDtype, device, category: 'gradient' });
  kernels.cast(sum, gradient);
  sum.dispose();
  return gradient;
}
