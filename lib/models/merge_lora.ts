// Merges adapters into the weights that they change.

import { matmulWorkspace } from '../ops/workspace.ts';
import { computeDtype } from '../runtime/dtype.ts';
import { kernels } from '../runtime/native.ts';
import { tidy } from '../runtime/scope.ts';
import { empty, type Tensor } from '../runtime/tensor.ts';
import type { Adapter } from './adapter.ts';
import type { Decoder } from './decoder.ts';
import { removeLora } from './lora.ts';

/** Rows of a weight that are merged at a time, so that merging takes little memory. */
const MERGED_ROWS = 1024;

/**
 * Adds every adapter's product to its weight, W += scale · B·A in f32 (f64 for f64), rounded once, and removes the adapters. A tied head
 * with an adapter is untied first, since the embedding has no adapter. Weights in 4 bits become parameters first (`dequantize`), so adapters go
 * into what they were trained on. If memory runs out, the model is unchanged.
 */
export function mergeLora(model: Decoder): void {
  const { lora } = model;
  if (!lora) throw new Error('mergeLora: the model has no adapters');
  const adapters = [...lora.adapters.values()];
  if (model.config.quantization) model.dequantize();
  tidy(() => {
    // All memory is allocated before the first weight changes.
    const columns = Math.max(...adapters.map(({ a }) => a.shape[1]!));
    const sum = empty([MERGED_ROWS * columns], {
      dtype: computeDtype(model.dtype),
      device: model.device,
      category: 'workspace',
    });
    const workspace = matmulWorkspace(model.device);
    if (lora.adapters.has('lm_head')) model.untieHead();
    const weights = new Map(model.projections());
    for (const adapter of adapters) addProduct(weights.get(adapter.path) as Tensor, adapter, sum, workspace);
  });
  removeLora(model);
}

function addProduct(weight: Tensor, { a, b, scale }: Adapter, buffer: Tensor, workspace: Tensor | null): void {
  const [O, I] = weight.shape as [number, number];
  for (let begin = 0; begin < O; begin += MERGED_ROWS) {
    tidy(() => {
      const end = Math.min(begin + MERGED_ROWS, O);
      const rows = weight.alias().rows(begin, end);
      const sum = buffer.rows(0, (end - begin) * I).reshape([end - begin, I]);
      kernels.cast(rows, sum);
      kernels.matmul(b.alias().rows(begin, end), a, sum, workspace, false, false, scale, 1);
      kernels.cast(sum, rows);
    });
  }
}
