// Softmax cross-entropy of logits that exist whole. For training, chunkedCrossEntropy needs a fraction of the memory.

import { operation } from '../autograd/tape.ts';
import { computeDtype } from '../runtime/dtype.ts';
import { kernels } from '../runtime/native.ts';
import { tidy } from '../runtime/scope.ts';
import { empty, type Tensor } from '../runtime/tensor.ts';
import {
  requireDtype,
  requireFinite,
  requireFloat,
  requireInteger,
  requireOneDevice,
  requireShape,
  rowsAndCols,
} from './check.ts';

/** Values of single tokens that come with the loss; none has a gradient. */
export const perTokenOutputs = ['losses', 'lse', 'logProbability', 'entropy', 'correct'] as const;
export type PerTokenOutput = (typeof perTokenOutputs)[number];

export interface CrossEntropyOptions {
  /** Rows with this target have no part in the loss. @default -100 */
  ignoreIndex?: number;
  /** Share of the target's probability that is spread over all V. @default 0 */
  labelSmoothing?: number;
  /** Weight of lse², which is part of the loss. @default 0 */
  zLoss?: number;
  /** c * tanh(logit / c) on every logit; 0: none. @default 0 */
  softcap?: number;
  /** (N,) float32 (float64 with float64): weight of each row. */
  tokenWeights?: Tensor | null;
  /** 'mean' divides by the (weighted) number of rows that are not ignored; 'sum' does not. @default 'mean' */
  reduction?: 'mean' | 'sum';
  /** Divide by this instead, e.g. the target tokens of a whole step of several micro-batches. */
  divisor?: number;
  /** Values of single tokens to return as (N,) tensors: 0 where ignored. @default [] */
  perToken?: readonly PerTokenOutput[];
}

/** The loss, a scalar with a gradient, and what `perToken` asked for. */
export type CrossEntropyResult = { loss: Tensor } & Partial<Record<PerTokenOutput, Tensor>>;

/** Options with their defaults, after checks. */
export interface CheckedOptions {
  ignoreIndex: number;
  labelSmoothing: number;
  zLoss: number;
  softcap: number;
  tokenWeights: Tensor | null;
  /** Host-side factor on the sum; with `countsOnDevice` the division follows on the device. */
  factor: number;
  countsOnDevice: boolean;
}

export function checkOptions(
  op: string,
  rows: number,
  targets: Tensor,
  dtype: Tensor['dtype'],
  options: CrossEntropyOptions,
): CheckedOptions {
  const {
    ignoreIndex = -100,
    labelSmoothing = 0,
    zLoss = 0,
    softcap = 0,
    tokenWeights = null,
    reduction = 'mean',
    divisor,
  } = options;
  requireDtype(op, 'targets', targets, 'int32');
  if (targets.size !== rows)
    throw new RangeError(`${op}: targets (${targets.shape}) are ${targets.size}, rows ${rows}`);
  requireInteger(op, 'ignoreIndex', ignoreIndex, { min: -(2 ** 31), max: 2 ** 31 - 1 });
  requireFinite(op, 'labelSmoothing', labelSmoothing, { min: 0, max: 1 });
  requireFinite(op, 'zLoss', zLoss, { min: 0 });
  requireFinite(op, 'softcap', softcap, { min: 0 });
  if (reduction !== 'mean' && reduction !== 'sum')
    throw new RangeError(`${op}: reduction '${reduction}' is neither 'mean' nor 'sum'`);
  if (divisor !== undefined) requireFinite(op, 'divisor', divisor, { min: Number.MIN_VALUE });
  if (tokenWeights) {
    requireDtype(op, 'tokenWeights', tokenWeights, computeDtype(dtype));
    requireShape(op, 'tokenWeights', tokenWeights, [rows]);
  }
  return {
    ignoreIndex,
    labelSmoothing,
    zLoss,
    softcap,
    tokenWeights,
    factor: divisor === undefined ? 1 : 1 / divisor,
    countsOnDevice: divisor === undefined && reduction === 'mean',
  };
}

/** (N,) tensors for what `perToken` asks for, and for `losses` in any case. */
export function perTokenTensors(
  like: Tensor,
  N: number,
  wanted: readonly PerTokenOutput[] = [],
): { losses: Tensor } & Partial<Record<PerTokenOutput, Tensor>> {
  const make = () => empty([N], { dtype: computeDtype(like.dtype), device: like.device, category: 'activation' });
  const result: { losses: Tensor } & Partial<Record<PerTokenOutput, Tensor>> = { losses: make() };
  for (const output of wanted) {
    if (!perTokenOutputs.includes(output)) {
      throw new RangeError(`crossEntropy: perToken '${output}' is none of ${perTokenOutputs.join(', ')}`);
    }
    result[output] ??= make();
  }
  return result;
}

/** loss () and, for a mean whose count only the device knows, divisor (1,). */
export function reduceLosses(
  losses: Tensor,
  targets: Tensor,
  options: CheckedOptions,
): { loss: Tensor; divisor: Tensor | null } {
  const { tokenWeights, factor, countsOnDevice, ignoreIndex } = options;
  const scalar = (shape: number[]) =>
    empty(shape, { dtype: losses.dtype, device: losses.device, category: 'activation' });
  const loss = scalar([]);
  kernels.cross_entropy_sum(losses, tokenWeights, loss, factor);
  if (!countsOnDevice) return { loss, divisor: null };
  const divisor = scalar([1]);
  kernels.cross_entropy_divisor(targets, tokenWeights, divisor, ignoreIndex);
  tidy(() => {
    const one = scalar([1]);
    kernels.fill(one, 1);
    kernels.scale_by(loss, one, divisor, loss);
  });
  return { loss, divisor };
}

/**
 * Cross-entropy of logits (N,V) and targets (N,).
 * @param logits (…,V), floating. The backward overwrites them with their gradient where nobody else uses their memory.
 * @param targets int32 of N elements; outside [0, V) and not ignoreIndex makes every read of the results reject with row, target and V
 */
export function crossEntropy(logits: Tensor, targets: Tensor, options: CrossEntropyOptions = {}): CrossEntropyResult {
  const op = 'crossEntropy';
  requireOneDevice(op, { logits, targets, tokenWeights: options.tokenWeights });
  requireFloat(op, 'logits', logits);
  const [N] = rowsAndCols(logits);
  const checked = checkOptions(op, N, targets, logits.dtype, options);
  const { ignoreIndex, labelSmoothing, zLoss, softcap, tokenWeights, factor } = checked;
  const outputs = perTokenTensors(logits, N, options.perToken);
  const run = (
    on: Tensor,
    targets: Tensor,
    weights: Tensor | null,
    losses: Tensor,
    writeDlogits: boolean,
    extra: typeof outputs | null,
  ) =>
    kernels.cross_entropy(
      on,
      targets.reshape([N]),
      weights,
      losses,
      extra?.lse ?? null,
      extra?.logProbability ?? null,
      extra?.entropy ?? null,
      extra?.correct ?? null,
      0,
      ignoreIndex,
      labelSmoothing,
      zLoss,
      softcap,
      writeDlogits,
    );
  const loss = operation({
    name: op,
    inputs: [logits],
    saved: tokenWeights ? [logits, targets, tokenWeights] : [logits, targets],
    savesMore: true,
    forward() {
      run(logits, targets, tokenWeights, outputs.losses, false, outputs);
      const { loss, divisor } = reduceLosses(outputs.losses, targets, checked);
      return { output: loss, more: divisor ? [divisor] : [] };
    },
    backward(dloss, saved) {
      const logits = saved[0]!;
      const divisor = checked.countsOnDevice ? saved.at(-1)! : null;
      const dlogits = logits.isShared
        ? empty(logits.shape, { dtype: logits.dtype, device: logits.device, category: 'activation' })
        : logits;
      if (dlogits !== logits) kernels.cast(logits, dlogits);
      const losses = empty([N], { dtype: outputs.losses.dtype, device: logits.device, category: 'workspace' });
      run(dlogits, saved[1]!, tokenWeights ? saved[2]! : null, losses, true, null);
      if (!dloss.isOne || divisor) kernels.scale_by(dlogits, dloss, divisor, dlogits);
      if (factor !== 1) kernels.scale(dlogits, dlogits, factor);
      return [dlogits];
    },
  });
  return pick(loss, outputs, options.perToken);
}

/** The loss and the asked for outputs; the others are freed. */
export function pick(
  loss: Tensor,
  outputs: Partial<Record<PerTokenOutput, Tensor>>,
  wanted: readonly PerTokenOutput[] = [],
): CrossEntropyResult {
  const result: CrossEntropyResult = { loss };
  for (const [name, tensor] of Object.entries(outputs) as [PerTokenOutput, Tensor][]) {
    if (wanted.includes(name)) result[name] = tensor;
    else tensor.dispose();
  }
  return result;
}
