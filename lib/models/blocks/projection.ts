// A linear layer with its bias and adapter.
import type { Parameter } from '../../autograd/parameter.ts';
import { linear } from '../../ops/linear.ts';
import { adaptedLinear } from '../../ops/low_rank.ts';
import type { Weight } from '../../ops/quantized_weight.ts';
import type { Tensor } from '../../runtime/tensor.ts';
import type { Forward } from './forward.ts';

/** A projection. `path` is its name in checkpoints without '.weight'. */
export interface Projection {
  path: string;
  weight: Weight;
  bias: Parameter | null;
}

/** x·weightᵀ + bias, plus the adapter's output if there is one. */
export function project(x: Tensor, { path, weight, bias }: Projection, forward: Pick<Forward, 'adapters' | 'dropout'>) {
  const adapter = forward.adapters.get(path);
  return adapter ? adaptedLinear(x, weight, bias, adapter, forward.dropout) : linear(x, weight, bias);
}
