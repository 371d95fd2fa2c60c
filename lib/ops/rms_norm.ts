// Root mean square normalisation.
import { computeDtype } from '../dtype.ts';
import { kernels } from '../native.ts';
import { operation } from '../tape.ts';
import { empty, type Tensor } from '../tensor.ts';
import { requireFinite, requireFloat, requireOneDevice, requireShape, rowsAndCols } from './check.ts';

/** Parts that the rows are summed in for the weight's gradient; see native/ops/rms_norm.h. */
const NUM_PARTIALS = 64;

/**
 * y (N,C) = x / sqrt(mean(x²) + eps) * (weight + weightOffset).
 * @param x (…,C)
 * @param weight (C,), x's dtype or float32
 * @param options.eps added to the mean square
 * @param options.weightOffset 1 for checkpoints that store `weight - 1` (Gemma). @default 0
 */
export function rmsNorm(x: Tensor, weight: Tensor, options: { eps: number; weightOffset?: number }): Tensor {
  const { eps, weightOffset = 0 } = options;
  requireOneDevice('rmsNorm', { x, weight });
  requireFloat('rmsNorm', 'x', x);
  requireFinite('rmsNorm', 'eps', eps, { min: 0 });
  const [N, C] = rowsAndCols(x);
  requireShape('rmsNorm', 'weight', weight, [C]);
  if (weight.dtype !== x.dtype && weight.dtype !== 'float32') {
    throw new TypeError(`rmsNorm: weight must be ${x.dtype} or float32, got ${weight.dtype}`);
  }
  const { device, dtype } = x;
  return operation({
    name: 'rmsNorm',
    inputs: [x, weight],
    saved: [x, weight],
    forward() {
      const y = empty([N, C], { dtype, device, category: 'activation' });
      kernels.rms_norm_forward(x, weight, y, eps, weightOffset);
      return { output: y };
    },
    backward(dy, [x, weight], gradients) {
      const dx = dy.isShared ? empty([N, C], { dtype, device, category: 'activation' }) : dy;
      const dweight = gradients.target(1);
      if (dweight?.overwrite) kernels.fill(dweight.gradient, 0);
      const partials =
        dweight && empty([NUM_PARTIALS, C], { dtype: computeDtype(dtype), device, category: 'workspace' });
      kernels.rms_norm_backward(dy, x!, weight!, dx, dweight?.gradient ?? null, partials, eps, weightOffset);
      return [dx, null];
    },
  });
}
