// Linear layer.

import { operation } from '../autograd/tape.ts';
import { computeDtype } from '../runtime/dtype.ts';
import { kernels } from '../runtime/native.ts';
import { tidy } from '../runtime/scope.ts';
import { empty, type Tensor } from '../runtime/tensor.ts';
import { requireDtype, requireFloat, requireOneDevice, requireRank, requireShape, rowsAndCols } from './check.ts';
import { dense, trainable, type Weight } from './quantized_weight.ts';
import { matmulWorkspace, numPartials } from './workspace.ts';

/**
 * y (N,O) = x (N,I) · weightᵀ + bias.
 * @param x (…,I), read as rows (N,I)
 * @param weight (O,I), x's dtype; in 4 bits: comes back to it in workspace, in the forward and in the backward, and gets no gradient
 * @param bias (O,), x's dtype; null: none
 */
export function linear(x: Tensor, weight: Weight, bias: Tensor | null = null): Tensor {
  requireOneDevice('linear', { x, weight, bias });
  requireRank('linear', 'weight', weight, 2);
  requireFloat('linear', 'x', x);
  const [N, I] = rowsAndCols(x);
  const [O, weightI] = weight.shape as [number, number];
  if (I !== weightI)
    throw new RangeError(`linear: x (${N},${I}) and weight (${O},${weightI}) disagree on the input size`);
  if (x.dtype !== weight.dtype) throw new TypeError(`linear: x is ${x.dtype}, weight ${weight.dtype}`);
  if (bias) {
    requireShape('linear', 'bias', bias, [O]);
    requireDtype('linear', 'bias', bias, x.dtype);
  }
  const { device, dtype } = x;
  return operation({
    name: 'linear',
    inputs: { x, weight: trainable(weight), bias },
    saved: { x, weight: trainable(weight) },
    forward() {
      const y = empty([N, O], { dtype, device, category: 'activation' });
      tidy(() => kernels.matmul(x, dense(weight), y, matmulWorkspace(device), false, true, 1, 0));
      if (bias) kernels.bias_forward(y, bias);
      return { output: y };
    },
    // y = x Wᵀ + b;  dx = dy W;  dW = dyᵀ x;  db = Σ dy over the rows
    backward(dy, { x, weight: saved }, gradients) {
      const workspace = matmulWorkspace(device);
      const dweight = gradients.target('weight');
      if (dweight) {
        kernels.matmul(dy, x, dweight.gradient, workspace, true, false, 1, dweight.overwrite ? 0 : 1);
      }
      const dbias = gradients.target('bias');
      if (dbias) {
        if (dbias.overwrite) kernels.fill(dbias.gradient, 0);
        const partials = empty([numPartials(device), O], { dtype: computeDtype(dtype), device, category: 'workspace' });
        kernels.bias_backward(dy, dbias.gradient, partials);
        partials.dispose();
      }
      if (!gradients.needs('x')) return {};
      const dx = empty([N, I], { dtype, device, category: 'activation' });
      kernels.matmul(dy, saved ?? dense(weight), dx, workspace, false, false, 1, 0);
      return { x: dx };
    },
  });
}
