// Whether parameters are finite, found on their device.
import type { Parameter } from '../autograd/parameter.ts';
import { numPartials } from '../ops/workspace.ts';
import { computeDtype } from '../runtime/dtype.ts';
import { kernels } from '../runtime/native.ts';
import { tidy } from '../runtime/scope.ts';
import { empty } from '../runtime/tensor.ts';

/**
 * The first parameter in f32 or bf16 with a value that is NaN or infinite; null: there is none. Partial sums of squares, in f64, tell: no finite
 * value of these dtypes overflows there. Each parameter is read once; workspace: 64 numbers in f64 for each on the CPU, 264 on CUDA.
 */
export async function firstNonFinite(parameters: readonly Parameter[]): Promise<Parameter | null> {
  if (parameters.length === 0) return null;
  const { device } = parameters[0]!;
  const P = numPartials(device);
  using partials = empty([parameters.length, P], { dtype: 'float64', device, category: 'workspace' });
  tidy(() => {
    for (const [i, parameter] of parameters.entries()) {
      const sum = empty([1], { dtype: computeDtype(parameter.dtype), device, category: 'workspace' });
      kernels.sum_of_squares(parameter, sum, partials.rows(i, i + 1).reshape([P]));
    }
  });
  const sums = (await partials.data()) as Float64Array;
  const index = sums.findIndex((sum) => !Number.isFinite(sum));
  return index < 0 ? null : parameters[Math.floor(index / P)]!;
}
