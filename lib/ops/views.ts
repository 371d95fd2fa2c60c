// Views that gradients flow through.

import { operation } from '../autograd/tape.ts';
import { kernels } from '../runtime/native.ts';
import { empty, type Tensor } from '../runtime/tensor.ts';

/** The elements of x in another shape, on the same memory. */
export function reshape(x: Tensor, shape: readonly number[]): Tensor {
  const { shape: original } = x;
  return operation({
    name: 'reshape',
    inputs: { x },
    saved: {},
    forward: () => ({ output: constant(x, (memory) => memory.reshape(shape)) }),
    backward: (dy) => ({ x: dy.reshape(original) }),
  });
}

/** Rows [begin, end) of the first dimension of x, on the same memory. */
export function rows(x: Tensor, begin: number, end: number): Tensor {
  const { shape, dtype, device } = x;
  return operation({
    name: 'rows',
    inputs: { x },
    saved: {},
    forward: () => ({ output: constant(x, (memory) => memory.rows(begin, end)) }),
    backward(dy) {
      const dx = empty(shape, { dtype, device, category: 'activation' });
      kernels.fill(dx, 0);
      kernels.cast(dy, dx.rows(begin, end));
      return { x: dx };
    },
  });
}

/** A view of x as a constant; the op's node, not the view, passes gradients on. */
function constant(x: Tensor, viewOf: (memory: Tensor) => Tensor): Tensor {
  const memory = x.alias();
  try {
    return viewOf(memory);
  } finally {
    memory.dispose();
  }
}
