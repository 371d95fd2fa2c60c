// A linear layer, with its bias and its adapter.
import type { Parameter } from '../../autograd/parameter.ts';
import { linear } from '../../ops/linear.ts';
import { adaptedLinear } from '../../ops/low_rank.ts';
import type { Tensor } from '../../runtime/tensor.ts';
import type { Forward } from './forward.ts';

/** A projection's name without '.weight', its weight and bias. */
export interface Projection {
  path: string;
  weight: Parameter;
  bias: Parameter | null;
}

/** x·weightᵀ + bias + what the adapter adds. */
export function project(x: Tensor, { path, weight, bias }: Projection, forward: Pick<Forward, 'adapters' | 'dropout'>) {
  const adapter = forward.adapters.get(path);
  return adapter ? adaptedLinear(x, weight, bias, adapter, forward.dropout) : linear(x, weight, bias);
}
