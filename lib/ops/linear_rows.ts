// Linear layer of some rows of a weight, which stores several projections one after the other.

import { operation } from '../autograd/tape.ts';
import { kernels } from '../runtime/native.ts';
import { tidy } from '../runtime/scope.ts';
import { empty, type Tensor } from '../runtime/tensor.ts';
import { requireFloat, requireInteger, requireOneDevice, requireRank, rowsAndCols } from './check.ts';
import { dense, trainable, type Weight } from './quantized_weight.ts';
import { matmulWorkspace } from './workspace.ts';

/**
 * y (N,end-begin) = x (N,I) · weight[begin:end]ᵀ. The weight's gradient is that of the whole weight: other rows get 0 from this op.
 * @param x (…,I), read as rows (N,I)
 * @param weight (O,I), x's dtype, or in 4 bits as in linear()
 * @param rows of the weight, within O
 */
export function linearRows(x: Tensor, weight: Weight, rows: { begin: number; end: number }): Tensor {
  const op = 'linearRows';
  const { begin, end } = rows;
  requireOneDevice(op, { x, weight });
  requireRank(op, 'weight', weight, 2);
  requireFloat(op, 'x', x);
  const [N, I] = rowsAndCols(x);
  const [O, weightI] = weight.shape as [number, number];
  if (I !== weightI)
    throw new RangeError(`${op}: x (${N},${I}) and weight (${O},${weightI}) disagree on the input size`);
  if (x.dtype !== weight.dtype) throw new TypeError(`${op}: x is ${x.dtype}, weight ${weight.dtype}`);
  requireInteger(op, 'rows.begin', begin, { min: 0 });
  requireInteger(op, 'rows.end', end, { min: begin + 1, max: O });
  const { device, dtype } = x;
  const part = (whole: Tensor) => whole.alias().rows(begin, end);
  return operation({
    name: op,
    inputs: { x, weight: trainable(weight) },
    saved: { x, weight: trainable(weight) },
    forward() {
      const y = empty([N, end - begin], { dtype, device, category: 'activation' });
      tidy(() => kernels.matmul(x, part(dense(weight)), y, matmulWorkspace(device), false, true, 1, 0));
      return { output: y };
    },
    // y = x Wᵀ;  dx = dy W;  dW = dyᵀ x
    backward(dy, { x, weight: saved }, gradients) {
      const workspace = matmulWorkspace(device);
      const dweight = gradients.target('weight');
      if (dweight?.overwrite) kernels.fill(dweight.gradient, 0);
      if (dweight) kernels.matmul(dy, x, part(dweight.gradient), workspace, true, false, 1, 1);
      if (!gradients.needs('x')) return {};
      const dx = empty([N, I], { dtype, device, category: 'activation' });
      kernels.matmul(dy, part(saved ?? dense(weight)), dx, workspace, false, false, 1, 0);
      return { x: dx };
    },
  });
}
