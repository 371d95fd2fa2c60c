// Embedding: rows of a table by token id.

import { operation } from '../autograd/tape.ts';
import { kernels } from '../runtime/native.ts';
import { empty, type Tensor } from '../runtime/tensor.ts';
import { requireDtype, requireFloat, requireOneDevice, requireRank } from './check.ts';
import { sortWorkspace } from './workspace.ts';

/**
 * y (N,C) = weight (V,C)[ids (N,)].
 * @param weight (V,C), floating
 * @param ids int32 of any shape, read as (N,). If an id is outside [0, V), every read of the result rejects with op, row, id and V
 */
export function embedding(weight: Tensor, ids: Tensor): Tensor {
  requireOneDevice('embedding', { weight, ids });
  requireRank('embedding', 'weight', weight, 2);
  requireFloat('embedding', 'weight', weight);
  requireDtype('embedding', 'ids', ids, 'int32');
  const C = weight.shape[1]!;
  const N = ids.size;
  return operation({
    name: 'embedding',
    inputs: { weight },
    saved: { ids },
    forward() {
      const y = empty([N, C], { dtype: weight.dtype, device: weight.device, category: 'activation' });
      kernels.embedding_forward(weight, ids.reshape([N]), y);
      return { output: y };
    },
    backward(dy, { ids }, gradients) {
      const { gradient, overwrite } = gradients.target('weight')!;
      if (overwrite) kernels.fill(gradient, 0);
      kernels.embedding_backward(dy, ids.reshape([N]), gradient, sortWorkspace(weight.device, N));
      return {};
    },
  });
}
