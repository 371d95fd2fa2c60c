// Shared by both cross-entropies: options, values for each token, and the reduction to one loss.
import { computeDtype } from '../runtime/dtype.ts';
import type { LossOptions } from '../runtime/kernel_arguments.ts';
import { kernels } from '../runtime/native.ts';
import { tidy } from '../runtime/scope.ts';
import { empty, type Tensor } from '../runtime/tensor.ts';
import { requireDtype, requireFinite, requireInteger, requireShape } from './check.ts';

/** Target of a row that the loss ignores. */
export const IGNORE_INDEX = -100;

/** Values for each token that can be returned with the loss. They have no gradient. */
const perTokenOutputs = ['losses', 'lse', 'logProbability', 'entropy', 'correct'] as const;
export type PerTokenOutput = (typeof perTokenOutputs)[number];

export interface CrossEntropyOptions {
  /** The loss ignores rows with this target. @default -100 */
  ignoreIndex?: number;
  /** Share of the target's probability that is spread evenly over all V tokens. @default 0 */
  labelSmoothing?: number;
  /** Adds zLoss * lse² to the loss of each token. @default 0 */
  zLoss?: number;
  /** Soft cap c: every logit becomes c * tanh(logit / c); 0: none. @default 0 */
  softcap?: number;
  /** (N,) float32 (float64 if the op computes in float64): weight of each row. */
  tokenWeights?: Tensor | null;
  /** 'mean' divides by the (weighted) number of rows that are not ignored; 'sum' does not. @default 'mean' */
  reduction?: 'mean' | 'sum';
  /** Divides the sum by this number instead, e.g. by the number of target tokens in all micro-batches of a step. */
  divisor?: number;
  /** Values for each token to return as (N,) tensors; they are 0 for ignored rows. @default [] */
  perToken?: readonly PerTokenOutput[];
}

/** The loss, a scalar with a gradient, and the tensors that `perToken` names. */
export type CrossEntropyResult = { loss: Tensor } & Partial<Record<PerTokenOutput, Tensor>>;

/** (N,) tensors that a kernel writes values for each token to. */
export type TokenOutputs = { losses: Tensor } & Record<Exclude<PerTokenOutput, 'losses'>, Tensor | null>;

/** Options after defaults and checks. */
export interface CheckedOptions {
  /** The kernels' argument. */
  kernel: LossOptions;
  tokenWeights: Tensor | null;
  /** Factor on the sum that the host knows. */
  factor: number;
  /** Whether the device counts the rows and divides by their number. */
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
    throw new RangeError(`${op}: targets (${targets.shape}) has ${targets.size} elements for ${rows} rows`);
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

/** Allocates (N,) tensors for the outputs that `perToken` names, and always for `losses`. */
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

/** loss (), and divisor (1,) if only the device knows the number of rows to divide by. */
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

/** The loss and the requested outputs. Frees the others. */
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
