// Sums and multiples of tensors.

import { operation } from '../autograd/tape.ts';
import type { Dtype } from '../runtime/dtype.ts';
import { kernels } from '../runtime/native.ts';
import { empty, type Tensor } from '../runtime/tensor.ts';
import { requireDtype, requireFinite, requireFloat, requireOneDevice, requireShape } from './check.ts';

/** y = a + b. a and b have the same shape and dtype. */
export function add(a: Tensor, b: Tensor): Tensor {
  requireOneDevice('add', { a, b });
  requireFloat('add', 'a', a);
  requireDtype('add', 'b', b, a.dtype);
  requireShape('add', 'b', b, a.shape);
  return operation({
    name: 'add',
    inputs: { a, b },
    saved: {},
    forward() {
      const y = empty(a.shape, { dtype: a.dtype, device: a.device, category: 'activation' });
      kernels.add(a, b, y);
      return { output: y };
    },
    backward: (dy) => ({ a: dy, b: dy }),
  });
}

/**
 * a + b, written over a, which nothing else may read afterwards: no op may have saved it. The result is another tensor on the same memory.
 * a and b have the same shape and dtype.
 */
export function addOnto(a: Tensor, b: Tensor): Tensor {
  requireOneDevice('addOnto', { a, b });
  requireFloat('addOnto', 'a', a);
  requireDtype('addOnto', 'b', b, a.dtype);
  requireShape('addOnto', 'b', b, a.shape);
  return operation({
    name: 'addOnto',
    inputs: { a, b },
    saved: {},
    forward() {
      kernels.add_to(b, a);
      return { output: a.alias() };
    },
    backward: (dy) => ({ a: dy, b: dy }),
  });
}

/** y = x * factor. */
export function scale(x: Tensor, factor: number): Tensor {
  requireFloat('scale', 'x', x);
  requireFinite('scale', 'factor', factor);
  const scaled = (from: Tensor) => {
    const y = empty(from.shape, { dtype: from.dtype, device: from.device, category: 'activation' });
    kernels.scale(from, y, factor);
    return y;
  };
  return operation({
    name: 'scale',
    inputs: { x },
    saved: {},
    forward: () => ({ output: scaled(x) }),
    backward: (dy) => ({ x: scaled(dy) }),
  });
}

/** x in another floating dtype. */
export function cast(x: Tensor, dtype: Dtype): Tensor {
  requireFloat('cast', 'x', x);
  const converted = (from: Tensor, to: Dtype) => {
    const y = empty(from.shape, { dtype: to, device: from.device, category: 'activation' });
    kernels.cast(from, y);
    return y;
  };
  const original = x.dtype;
  return operation({
    name: 'cast',
    inputs: { x },
    saved: {},
    forward: () => ({ output: converted(x, dtype) }),
    backward: (dy) => ({ x: converted(dy, original) }),
  });
}
