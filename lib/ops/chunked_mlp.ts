// The gated MLP over mini-sequences. Its (N,F) intermediates exist for one chunk of M rows at a time, in the forward and in the backward.

import { operation } from '../autograd/tape.ts';
import type { MlpWeights } from '../runtime/kernel_arguments.ts';
import { kernels } from '../runtime/native.ts';
import { tidy } from '../runtime/scope.ts';
import { empty, type Tensor } from '../runtime/tensor.ts';
import { requireCount, requireDtype, requireFloat, requireOneDevice, requireShape, rowsAndCols } from './check.ts';
import type { DropoutMask } from './dropout.ts';
import { type Activation, activationCodes } from './glu.ts';
import { type MlpLowRank, OpAdapters } from './low_rank.ts';
import { denseGroup, trainable, type Weight } from './quantized_weight.ts';
import { defaultChunkSize, matmulWorkspace } from './workspace.ts';

export interface ChunkedMlpOptions {
  /** Activation of the gate. @default 'silu' */
  activation?: Activation;
  /** Rows M of one chunk; the last may be shorter. @default at most C rounded up to a multiple of 1024, in chunks of near equal size */
  chunkSize?: number;
  /**
   * What is kept for the backward. 'input': only x, and the backward recomputes gate and up; 11 units of 2·N·C·F operations.
   * 'gateUp': gate and up too; 9 units. @default 'input'
   */
  save?: 'input' | 'gateUp';
  /** Low-rank parts of the projections. */
  adapters?: MlpLowRank;
  /** Dropout before the adapters; null: none. @default null */
  dropout?: DropoutMask | null;
}

/**
 * y (N,C) = down( act(x·gateᵀ) * (x·upᵀ) ), in chunks of rows. The down product is never recomputed.
 * Weights in 4 bits come back to x's dtype in workspace once for each forward and each backward, before the first chunk, and get no gradient.
 * @param x (…,C), read as rows (N,C)
 * @param gate (F,C), x's dtype; (2F,C) with up's rows after gate's where up is null
 * @param up (F,C), or null
 * @param down (C,F)
 */
export function chunkedMlp(
  x: Tensor,
  gate: Weight,
  up: Weight | null,
  down: Weight,
  options: ChunkedMlpOptions = {},
): Tensor {
  const op = 'chunkedMlp';
  requireOneDevice(op, { x, gate, up, down });
  requireFloat(op, 'x', x);
  const [N, C] = rowsAndCols(x);
  const F = up ? (gate.shape[0] ?? 0) : Math.floor((gate.shape[0] ?? 0) / 2);
  requireShape(op, 'gate', gate, [up ? F : 2 * F, C]);
  if (up) requireShape(op, 'up', up, [F, C]);
  requireShape(op, 'down', down, [C, F]);
  const weights = up ? { gate, up, down } : { gate, down };
  for (const [name, weight] of Object.entries(weights)) requireDtype(op, name, weight, x.dtype);
  const { activation = 'silu', chunkSize = defaultChunkSize(N, C), save = 'input' } = options;
  const adapters = new OpAdapters(options.adapters, options.dropout);
  adapters.check(op, { C, F, isFused: up === null, dtype: x.dtype });
  requireCount(op, 'chunkSize', chunkSize);
  if (!Object.hasOwn(activationCodes, activation))
    throw new RangeError(`${op}: activation '${activation}' is neither 'silu' nor 'geluTanh'`);
  if (save !== 'input' && save !== 'gateUp')
    throw new RangeError(`${op}: save '${save}' is neither 'input' nor 'gateUp'`);
  const M = Math.min(N, chunkSize);
  const width = Math.max(C, F);
  const code = activationCodes[activation];
  const { device, dtype } = x;
  const scratch = (rows: number, cols: number) => empty([rows, cols], { dtype, device, category: 'workspace' });
  const keepsGateUp = save === 'gateUp';
  const all = Object.values(weights);
  /** Gate's and up's rows. */
  const halves = (gateUp: Tensor): [gate: Tensor, up: Tensor] => {
    const whole = gateUp.alias();
    return [whole.rows(0, F), whole.rows(F, 2 * F)];
  };
  const native = (weights: readonly Weight[]): MlpWeights => {
    const values = denseGroup(weights);
    const [gate, up, down] = (values.length === 2 ? [...halves(values[0]!), values[1]] : values) as [
      Tensor,
      Tensor,
      Tensor,
    ];
    return { gate, up, down };
  };
  const inputs = { x, gate: trainable(gate), up: up && trainable(up), down: trainable(down), ...adapters.tensors };
  return operation({
    name: op,
    inputs,
    saved: inputs,
    savesMore: keepsGateUp,
    forward(recording) {
      const y = empty([N, C], { dtype, device, category: 'activation' });
      return tidy(() => {
        const keeps = keepsGateUp && recording;
        const gateUp = keeps ? empty([N, 2 * F], { dtype, device, category: 'activation' }) : scratch(M, 2 * F);
        kernels.chunked_mlp_forward(
          x,
          native(all),
          y,
          { memory: gateUp, isKept: keeps },
          scratch(M, F),
          matmulWorkspace(device),
          code,
          { ...adapters.native(adapters.tensors), scratch: adapters.scratch(M, width, x) },
        );
        return { output: y, more: { kept: keeps ? gateUp : null } };
      });
    },
    backward(dy, { x, kept, ...saved }, gradients) {
      // Each chunk of dx is written after the last use of the same rows of x.
      const inPlace = () => (x.isShared ? empty([N, C], { dtype, device, category: 'activation' }) : x.alias());
      const dx = gradients.needs('x') ? inPlace() : null;
      gradients.overChunks(Math.ceil(N / M), (gradients) => {
        // Gradients outlive the workspaces. Allocated first, they let the freed workspaces form one hole instead of several.
        const dgate = gradients.target('gate');
        const [ofGate, ofUp] = up || !dgate ? [] : halves(dgate.gradient);
        const targets = {
          dx,
          dgate: ofGate ? { ...dgate!, gradient: ofGate } : dgate,
          dup: up ? gradients.target('up') : ofUp ? { ...dgate!, gradient: ofUp } : null,
          ddown: gradients.target('down'),
        };
        const ofAdapters = adapters.native(saved, gradients);
        kernels.chunked_mlp_backward(
          dy,
          x,
          native([saved.gate ?? gate, ...(up ? [saved.up ?? up] : []), saved.down ?? down]),
          targets,
          { memory: kept ?? scratch(M, 2 * F), isKept: kept !== null },
          scratch(M, F),
          matmulWorkspace(device),
          code,
          { ...ofAdapters, scratch: adapters.scratch(M, width, x) },
        );
      });
      return { x: dx };
    },
  });
}
