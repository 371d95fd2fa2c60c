// Root mean square normalisation.

import { operation } from '../autograd/tape.ts';
import { computeDtype } from '../runtime/dtype.ts';
import { kernels } from '../runtime/native.ts';
import { tidy } from '../runtime/scope.ts';
import { empty, type Tensor } from '../runtime/tensor.ts';
import { requireFinite, requireFloat, requireOneDevice, requireRank, rowsAndCols } from './check.ts';
import { numPartials } from './workspace.ts';

/**
 * y (N,C) = x / sqrt(mean(x²) + eps) * (weight + weightOffset). The mean is over as many columns as weight has.
 * @param x (…,C), or (…,H·D), whose H heads are normalised separately
 * @param weight (C,) or (D,), x's dtype or float32
 * @param options.eps added to the mean square
 * @param options.weightOffset 1 for checkpoints that store `weight - 1` (Gemma). @default 0
 */
export function rmsNorm(x: Tensor, weight: Tensor, options: { eps: number; weightOffset?: number }): Tensor {
  const { eps, weightOffset = 0 } = options;
  requireOneDevice('rmsNorm', { x, weight });
  requireFloat('rmsNorm', 'x', x);
  requireFinite('rmsNorm', 'eps', eps, { min: 0 });
  requireFinite('rmsNorm', 'weightOffset', weightOffset);
  const [N, C] = rowsAndCols(x);
  requireRank('rmsNorm', 'weight', weight, 1);
  const D = weight.size;
  if (C % D !== 0) throw new RangeError(`rmsNorm: x has ${C} columns, not a multiple of weight's ${D}`);
  const heads = (tensor: Tensor) => (C === D ? tensor : tensor.alias().reshape([(N * C) / D, D]));
  if (weight.dtype !== x.dtype && weight.dtype !== 'float32') {
    throw new TypeError(`rmsNorm: weight must be ${x.dtype} or float32, got ${weight.dtype}`);
  }
  const { device, dtype } = x;
  return operation({
    name: 'rmsNorm',
    inputs: { x, weight },
    saved: { x, weight },
    forward() {
      const y = empty([N, C], { dtype, device, category: 'activation' });
      tidy(() => kernels.rms_norm_forward(heads(x), weight, heads(y), eps, weightOffset));
      return { output: y };
    },
    backward(dy, { x, weight }, gradients) {
      const dx = dy.isShared ? empty([N, C], { dtype, device, category: 'activation' }) : dy;
      const dweight = gradients.target('weight');
      if (dweight?.overwrite) kernels.fill(dweight.gradient, 0);
      const partials =
        dweight && empty([numPartials(device), D], { dtype: computeDtype(dtype), device, category: 'workspace' });
      const gradient = dweight?.gradient ?? null;
      kernels.rms_norm_backward(heads(dy), heads(x), weight, heads(dx), gradient, partials, eps, weightOffset);
      return { x: dx };
    },
  });
}
