// Soft-capping of scores.

import { operation } from '../autograd/tape.ts';
import { kernels } from '../runtime/native.ts';
import { empty, type Tensor } from '../runtime/tensor.ts';
import { requireFinite, requireFloat } from './check.ts';

/**
 * y = cap * tanh(x / cap), element by element.
 * @param cap positive
 */
export function softcap(x: Tensor, cap: number): Tensor {
  requireFloat('softcap', 'x', x);
  requireFinite('softcap', 'cap', cap, { min: Number.MIN_VALUE });
  const { shape, dtype, device } = x;
  return operation({
    name: 'softcap',
    inputs: { x },
    saved: {},
    savesMore: true,
    forward() {
      const y = empty(shape, { dtype, device, category: 'activation' });
      kernels.softcap_forward(x, y, cap);
      return { output: y, more: { y: y.alias() } };
    },
    backward(dy, { y }) {
      const dx = dy.isShared ? empty(shape, { dtype, device, category: 'activation' }) : dy;
      kernels.softcap_backward(dy, y, dx, cap);
      return { x: dx };
    },
  });
}
