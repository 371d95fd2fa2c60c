// A mixture of experts over mini-sequences. Rows of tokens sorted by expert, and what is between their products, exist for one chunk of M
// tokens at a time, in the forward and in the backward.

import type { OpGradients } from '../autograd/gradients.ts';
import { operation } from '../autograd/tape.ts';
import { computeDtype, type Dtype } from '../runtime/dtype.ts';
import type { WeightGradient } from '../runtime/kernel_arguments.ts';
import { kernels } from '../runtime/native.ts';
import { tidy } from '../runtime/scope.ts';
import { empty, Tensor } from '../runtime/tensor.ts';
import {
  requireCount,
  requireDtype,
  requireFloat,
  requireInteger,
  requireOneDevice,
  requireShape,
  rowsAndCols,
} from './check.ts';
import { type Activation, activationCodes } from './glu.ts';
import { defaultChunkSize, matmulWorkspace } from './workspace.ts';

/** Weights of E gated MLPs of one size and of their router, in x's dtype. */
export interface Experts {
  /** (E,C). */
  router: Tensor;
  /** For each expert gate (F,C) and up (F,C), in turn: 2·E tensors, side by side in memory. */
  gateUp: readonly Tensor[];
  /** For each expert (C,F): E tensors, side by side in memory. */
  down: readonly Tensor[];
}

export interface ChunkedExpertsOptions {
  /** Experts k of a token. */
  perToken: number;
  /** Whether the weights of a token's k experts are divided by their sum. */
  isNormalized: boolean;
  /** Activation of the gates. @default 'silu' */
  activation?: Activation;
  /** Tokens M of one chunk; the last may be shorter. @default that of chunkedMlp */
  chunkSize?: number;
}

/**
 * y (N,C) = Σ_j w_j · down_e( act(x·gate_eᵀ) * (x·up_eᵀ) ) with e the j-th of a token's k experts: the most probable ones of
 * softmax(x·routerᵀ), and w_j their probabilities. No expert has a limit of tokens. The backward keeps x alone: it routes again, with the same
 * result, and recomputes gate and up. Memory of a chunk is that of M·k rows, however they are routed.
 * @param x (…,C), read as rows (N,C)
 */
export function chunkedExperts(x: Tensor, experts: Experts, options: ChunkedExpertsOptions): Tensor {
  const op = 'chunkedExperts';
  const { router, gateUp, down } = experts;
  const weights = [router, ...gateUp, ...down];
  const E = down.length;
  requireOneDevice(op, Object.fromEntries([x, ...weights].entries()));
  requireFloat(op, 'x', x);
  const [N, C] = rowsAndCols(x);
  const F = down[0]?.shape[1] ?? 0;
  requireShape(op, 'router', router, [E, C]);
  if (gateUp.length !== 2 * E)
    throw new RangeError(`${op}: gateUp must be ${2 * E} tensors for ${E} of down, got ${gateUp.length}`);
  for (const [i, each] of gateUp.entries()) requireShape(op, `gateUp[${i}]`, each, [F, C]);
  for (const [i, each] of down.entries()) requireShape(op, `down[${i}]`, each, [C, F]);
  for (const weight of weights) requireDtype(op, weight.name ?? 'a weight', weight, x.dtype);
  const { perToken: k, isNormalized, activation = 'silu', chunkSize = defaultChunkSize(N, C) } = options;
  requireCount(op, 'chunkSize', chunkSize);
  requireInteger(op, 'perToken', k, { min: 1, max: E });
  if (!Object.hasOwn(activationCodes, activation))
    throw new RangeError(`${op}: activation '${activation}' is neither 'silu' nor 'geluTanh'`);
  const M = Math.min(N, chunkSize);
  const R = M * k;
  const { device, dtype } = x;
  const scratch = (shape: number[], of: Dtype = dtype) => empty(shape, { dtype: of, device, category: 'workspace' });
  const wide = computeDtype(dtype);
  /** Workspace of a chunk; native/ops/chunked_experts.h describes it. */
  const scratchOf = (isBackward: boolean) => ({
    logits: scratch([M, E]),
    probabilities: scratch([M, E], wide),
    weights: scratch([M, k], wide),
    experts: scratch([M, k], 'int32'),
    offsets: scratch([E + 1], 'int32'),
    order: scratch([R], 'int32'),
    places: scratch([R], 'int32'),
    rows: scratch([R, C]),
    gateUp: scratch([R, 2 * F]),
    dweights: isBackward ? scratch([M, k], wide) : null,
    drows: isBackward ? scratch([R, C]) : null,
    dh: isBackward ? scratch([R, F]) : null,
  });
  const together = (name: string, tensors: readonly Tensor[]): Tensor => {
    const whole = Tensor.joined(tensors);
    if (!whole) throw new RangeError(`${op}: the ${tensors.length} tensors of ${name} must lie side by side in memory`);
    return whole;
  };
  const native = ([router, ...others]: readonly Tensor[]) => ({
    router: router!,
    gateUp: together('gateUp', others.slice(0, 2 * E)),
    down: together('down', others.slice(2 * E)),
  });
  tidy(() => void native(weights));
  const code = activationCodes[activation];
  const tensors: Tensors = { x, router, ...named('gateUp', gateUp), ...named('down', down) };
  return operation({
    name: op,
    inputs: tensors,
    saved: tensors,
    forward() {
      const y = empty([N, C], { dtype, device, category: 'activation' });
      return tidy(() => {
        kernels.chunked_experts_forward(
          x,
          native(weights),
          y,
          scratchOf(false),
          matmulWorkspace(device),
          code,
          isNormalized,
        );
        return { output: y };
      });
    },
    backward(dy, { x, ...saved }, gradients) {
      const inPlace = () => (x.isShared ? empty([N, C], { dtype, device, category: 'activation' }) : x.alias());
      const dx = gradients.needs('x') ? inPlace() : null;
      gradients.overChunks(Math.ceil(N / M), (gradients) => {
        // Gradients outlive the workspaces; see chunked_mlp.ts.
        const drouter = gradients.target('router');
        const dgateUp = targetOfAll(named('gateUp', gateUp), gradients);
        const ddown = targetOfAll(named('down', down), gradients);
        const targets = { dx, drouter, dgateUp: dgateUp.whole, ddown: ddown.whole };
        kernels.chunked_experts_backward(
          dy,
          x,
          native(Object.values(saved)),
          targets,
          scratchOf(true),
          matmulWorkspace(device),
          code,
          isNormalized,
        );
        dgateUp.finish();
        ddown.finish();
      });
      return { x: dx };
    },
  });
}

/** The op's inputs: x, and weights by their names. */
interface Tensors {
  x: Tensor;
  [weight: string]: Tensor;
}

/** Tensors of one kind by the names of inputs. */
function named(kind: string, tensors: readonly Tensor[]): Record<string, Tensor> {
  return Object.fromEntries(tensors.map((tensor, i) => [`${kind}.${i}`, tensor]));
}

/**
 * Memory for the gradients of inputs of one kind, as one tensor: theirs if they lie side by side and are all new, or all old; otherwise
 * workspace, from which `finish` adds to those that are wanted.
 */
function targetOfAll(
  weights: Record<string, Tensor>,
  gradients: OpGradients,
): { whole: WeightGradient | null; finish(): void } {
  const places = Object.keys(weights).map((name) => gradients.target(name));
  const wanted = places.filter((place) => place !== null);
  const [one] = wanted;
  if (!one) return { whole: null, finish() {} };
  const isOne = wanted.length === places.length && wanted.every(({ overwrite }) => overwrite === one.overwrite);
  const gradient = isOne ? Tensor.joined(wanted.map(({ gradient }) => gradient)) : null;
  if (gradient) return { whole: { gradient, overwrite: one.overwrite }, finish() {} };
  const [rows, cols] = Object.values(weights)[0]!.shape as [number, number];
  const { device, dtype } = one.gradient;
  const apart = empty([places.length * rows, cols], { dtype, device, category: 'workspace' });
  const finish = () => {
    for (const [i, place] of places.entries()) {
      const part = apart.rows(i * rows, (i + 1) * rows);
      if (place?.overwrite) kernels.cast(part, place.gradient);
      else if (place) kernels.add_to(part, place.gradient);
    }
  };
  return { whole: { gradient: apart, overwrite: true }, finish };
}
