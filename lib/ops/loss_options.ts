// What both cross-entropies share: their options, the values of single tokens, and the reduction to one loss.
import { computeDtype } from '../runtime/dtype.ts';
import { kernels, type LossOptions } from '../runtime/native.ts';
import { tidy } from '../runtime/scope.ts';
import { empty, type Tensor } from '../runtime/tensor.ts';
import { requireDtype, requireFinite, requireInteger, requireShape } from './check.ts';

/** Target of a row that has no part in the loss. */
export const IGNORE_INDEX = -100;

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

/** What a kernel writes for single tokens: (N,) tensors. */
export type TokenOutputs = { losses: Tensor } & Record<Exclude<PerTokenOutput, 'losses'>, Tensor | null>;

/** Options with their defaults, after checks. */
export interface CheckedOptions {
  /** The kernels' argument. */
  kernel: LossOptions;
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
    ignoreIndex = IGNORE_INDEX,
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
    kernel: { ignoreIndex, labelSmoothing, zLoss, softcap },
    tokenWeights,
    factor: divisor === undefined ? 1 : 1 / divisor,
    countsOnDevice: divisor === undefined && reduction === 'mean',
  };
}

/** (N,) tensors for what `perToken` asks for, and for `losses` in any case. */
export function tokenOutputs(like: Tensor, N: number, wanted: readonly PerTokenOutput[] = []): TokenOutputs {
  for (const output of wanted) {
    if (!perTokenOutputs.includes(output))
      throw new RangeError(`crossEntropy: perToken '${output}' is none of ${perTokenOutputs.join(', ')}`);
  }
  const make = () => empty([N], { dtype: computeDtype(like.dtype), device: like.device, category: 'activation' });
  const wantedOne = (output: PerTokenOutput) => (wanted.includes(output) ? make() : null);
  return {
    losses: make(),
    lse: wantedOne('lse'),
    logProbability: wantedOne('logProbability'),
    entropy: wantedOne('entropy'),
    correct: wantedOne('correct'),
  };
}

/** loss () and, for a mean whose count only the device knows, divisor (1,). */
export function reduceLosses(
  losses: Tensor,
  targets: Tensor,
  options: CheckedOptions,
): { loss: Tensor; divisor: Tensor | null } {
  const { tokenWeights, factor, countsOnDevice } = options;
  const scalar = (shape: number[]) =>
    empty(shape, { dtype: losses.dtype, device: losses.device, category: 'activation' });
  const loss = scalar([]);
  kernels.cross_entropy_sum(losses, tokenWeights, loss, factor);
  if (!countsOnDevice) return { loss, divisor: null };
  const divisor = scalar([1]);
  kernels.cross_entropy_divisor(targets, tokenWeights, divisor, options.kernel.ignoreIndex);
  tidy(() => {
    const one = scalar([1]);
    kernels.fill(one, 1);
    kernels.scale_by(loss, one, divisor, loss);
  });
  return { loss, divisor };
}

/** The loss and the asked for outputs; the others are freed. */
export function lossResult(
  loss: Tensor,
  outputs: TokenOutputs,
  wanted: readonly PerTokenOutput[] = [],
): CrossEntropyResult {
  const result: CrossEntropyResult = { loss };
  for (const name of perTokenOutputs) {
    const tensor = outputs[name];
    if (tensor && wanted.includes(name)) result[name] = tensor;
    else tensor?.dispose();
  }
  return result;
}
