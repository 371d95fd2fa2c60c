// Causal self-attention with grouped key/value heads and a streaming softmax.

import { operation } from '../autograd/tape.ts';
import { computeDtype } from '../runtime/dtype.ts';
import { kernels } from '../runtime/native.ts';
import { tidy } from '../runtime/scope.ts';
import { empty, type Tensor } from '../runtime/tensor.ts';
import {
  requireCount,
  requireDtype,
  requireFinite,
  requireFloat,
  requireInteger,
  requireOneDevice,
  requireShape,
  rowsAndCols,
} from './check.ts';
import { attentionBackwardWorkspace, attentionForwardWorkspace } from './workspace.ts';

export interface AttentionOptions {
  /** Sequence length T; the rows N are B·T. */
  T: number;
  /** Head size D. */
  headSize: number;
  /** Factor on q·k. @default 1 / sqrt(D) */
  scale?: number;
  /** Number of positions that a query sees, its own included; 0: all up to its own. @default 0 */
  window?: number;
  /** Soft cap c: every score becomes c * tanh(score / c); 0: none. @default 0 */
  softcap?: number;
  /** (N,) int32: the first row of each row's document; a query sees only its own document. */
  documentStart?: Tensor | null;
}

/**
 * out (N,H·D) = softmax(scale * q·k, causal) · v; query head h reads key/value head h / (H/G). Memory grows with T, not with T².
 * @param q (N,H·D)
 * @param k (N,G·D)
 * @param v (N,G·D)
 */
export function attention(q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions): Tensor {
  const {
    T,
    headSize: D,
    scale = 1 / Math.sqrt(options.headSize),
    window = 0,
    softcap = 0,
    documentStart = null,
  } = options;
  const op = 'attention';
  requireOneDevice(op, { q, k, v, documentStart });
  requireFloat(op, 'q', q);
  requireDtype(op, 'k', k, q.dtype);
  requireDtype(op, 'v', v, q.dtype);
  requireCount(op, 'T', T);
  requireCount(op, 'headSize', D);
  requireFinite(op, 'scale', scale);
  requireInteger(op, 'window', window, { min: 0 });
  requireFinite(op, 'softcap', softcap, { min: 0 });
  const [N, queryWidth] = rowsAndCols(q);
  const [keyRows, keyWidth] = rowsAndCols(k);
  if (keyRows !== N) throw new RangeError(`${op}: q has ${N} rows, k ${keyRows}`);
  requireShape(op, 'v', v, k.shape);
  if (queryWidth % D !== 0 || keyWidth % D !== 0) {
    throw new RangeError(
      `${op}: q (${N},${queryWidth}) and k (${N},${keyWidth}) must have whole heads of ${D} columns`,
    );
  }
  const [H, G] = [queryWidth / D, keyWidth / D];
  if (H % G !== 0)
    throw new RangeError(
      `${op}: the number of query heads, ${H}, must be a multiple of the number of key/value heads, ${G}`,
    );
  if (N % T !== 0) throw new RangeError(`${op}: q has ${N} rows, not a multiple of T ${T}`);
  if (documentStart) {
    requireDtype(op, 'documentStart', documentStart, 'int32');
    requireShape(op, 'documentStart', documentStart, [N]);
  }
  const { device, dtype } = q;
  const B = N / T;
  const sizes = { B, T, H, G, D, dtype, hasDocuments: documentStart !== null };
  const scores = { T, D, scale, window, softcap };
  return operation({
    name: op,
    inputs: { q, k, v },
    saved: { q, k, v, documentStart },
    savesMore: true,
    forward() {
      const out = empty([N, queryWidth], { dtype, device, category: 'activation' });
      const lse = empty([B, H, T], { dtype: computeDtype(dtype), device, category: 'activation' });
      tidy(() => {
        const workspace = attentionForwardWorkspace(device, sizes);
        kernels.attention_forward({ q, k, v, documentStart }, out, lse, workspace, scores);
      });
      return { output: out, more: { out: out.alias(), lse } };
    },
    backward(dout, { out, lse, ...inputs }) {
      const dq = empty([N, queryWidth], { dtype, device, category: 'activation' });
      const dk = empty([N, keyWidth], { dtype, device, category: 'activation' });
      const dv = empty([N, keyWidth], { dtype, device, category: 'activation' });
      const workspace = attentionBackwardWorkspace(device, sizes);
      kernels.attention_backward(dout, inputs, out, lse, { dq, dk, dv }, workspace, scores);
      return { q: dq, k: dk, v: dv };
    },
  });
}
