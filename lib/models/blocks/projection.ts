// A linear layer with its bias and adapter.
import type { Parameter } from '../../autograd/parameter.ts';
import { add } from '../../ops/elementwise.ts';
import { linear } from '../../ops/linear.ts';
import { linearRows } from '../../ops/linear_rows.ts';
import { adaptedLinear, lowRankInput } from '../../ops/low_rank.ts';
import { dense, type Weight } from '../../ops/quantized_weight.ts';
import { tidy } from '../../runtime/scope.ts';
import type { Tensor } from '../../runtime/tensor.ts';
import type { Forward } from './forward.ts';

/** A projection. `path` is its name in checkpoints without '.weight'. */
export interface Projection {
  path: string;
  weight: Weight;
  bias: Parameter | null;
  /** The rows that the projection has of a weight without bias, which several share. @default null: the weight is the projection's own */
  rows?: { begin: number; end: number } | null;
}

/** x·weightᵀ + bias, plus the adapter's output if there is one. */
export function project(x: Tensor, projection: Projection, forward: Pick<Forward, 'adapters' | 'dropout'>): Tensor {
  const { path, weight, bias, rows } = projection;
  const adapter = forward.adapters.get(path);
  if (rows) {
    if (!adapter) return linearRows(x, weight, rows);
    return tidy(() => {
      const low = lowRankInput(x, adapter, forward.dropout);
      return add(linearRows(x, weight, rows), linearRows(low, adapter.b, rows));
    });
  }
  return adapter ? adaptedLinear(x, weight, bias, adapter, forward.dropout) : linear(x, weight, bias);
}

/** The same for rows [begin, end) of the weight: that part of the output's columns. They are constants, without gradients. */
export function projectRows(
  x: Tensor,
  { path, weight, bias }: Projection,
  { begin, end }: { begin: number; end: number },
  forward: Pick<Forward, 'adapters' | 'dropout'>,
): Tensor {
  return tidy(() => {
    const rows = (whole: Tensor) => whole.alias().rows(begin, end);
    const adapter = forward.adapters.get(path);
    const partBias = bias && rows(bias);
    const part = rows(dense(weight));
    if (!adapter) return linear(x, part, partBias);
    return adaptedLinear(x, part, partBias, { ...adapter, b: rows(adapter.b) }, forward.dropout);
  });
}
