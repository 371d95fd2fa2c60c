// Linear layer without bias.
import { kernels } from '../native.ts';
import { tidy } from '../scope.ts';
import { operation } from '../tape.ts';
import { empty, type Tensor } from '../tensor.ts';
import { requireFloat, requireOneDevice, requireRank, rowsAndCols } from './check.ts';
import { matmulWorkspace } from './workspace.ts';

/**
 * y (N,O) = x (N,I) · weightᵀ.
 * @param x (…,I), read as rows (N,I)
 * @param weight (O,I), x's dtype
 */
export function linear(x: Tensor, weight: Tensor): Tensor {
  requireOneDevice('linear', { x, weight });
  requireRank('linear', 'weight', weight, 2);
  requireFloat('linear', 'x', x);
  const [N, I] = rowsAndCols(x);
  const [O, weightI] = weight.shape as [number, number];
  if (I !== weightI)
    throw new RangeError(`linear: x (${N},${I}) and weight (${O},${weightI}) disagree on the input size`);
  if (x.dtype !== weight.dtype) throw new TypeError(`linear: x is ${x.dtype}, weight ${weight.dtype}`);
  const { device, dtype } = x;
  return operation({
    name: 'linear',
    inputs: [x, weight],
    saved: [x, weight],
    forward() {
      const y = empty([N, O], { dtype, device, category: 'activation' });
      tidy(() => kernels.matmul(x, weight, y, matmulWorkspace(device), false, true, 1, 0));
      return { output: y };
    },
    // y = x Wᵀ;  dx = dy W;  dW = dyᵀ x
    backward(dy, [x, weight], gradients) {
      const workspace = matmulWorkspace(device);
      const dweight = gradients.target(1);
      if (dweight) {
        kernels.matmul(dy, x!, dweight.gradient, workspace, true, false, 1, dweight.overwrite ? 0 : 1);
      }
      if (!gradients.needs(0)) return [null, null];
      const dx = empty([N, I], { dtype, device, category: 'activation' });
      kernels.matmul(dy, weight!, dx, workspace, false, false, 1, 0);
      return [dx, null];
    },
  });
}
