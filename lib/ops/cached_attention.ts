// Attention of new tokens to all before them, for generation; it has no gradient.
import { kernels } from '../runtime/native.ts';
import { empty, type Tensor } from '../runtime/tensor.ts';
import { requireOneDevice } from './check.ts';

export interface CachedAttentionOptions {
  /** Position of q's first row in its sequence. */
  position: number;
  headSize: number;
  scale: number;
  window: number;
  softcap: number;
}

/**
 * out (N,H·D) = softmax(scale * q·k, causal) · v of queries at positions from `position` on.
 * @param q (N,H·D)
 * @param k (S,G·D), filled up to and with the last query's position
 * @param v (S,G·D)
 */
export function cachedAttention(q: Tensor, k: Tensor, v: Tensor, options: CachedAttentionOptions): Tensor {
  const { position, headSize, scale, window, softcap } = options;
  requireOneDevice('cachedAttention', { q, k, v });
  const [N] = q.shape as [number, number];
  if (position + N > k.shape[0]!) {
    throw new RangeError(`cachedAttention: position ${position} and ${N} queries pass the ${k.shape[0]} rows of k`);
  }
  const out = empty(q.shape, { dtype: q.dtype, device: q.device, category: 'activation' });
  const scores = { T: k.shape[0]!, D: headSize, scale, window, softcap };
  kernels.cached_attention({ q, k, v, documentStart: null }, out, position, scores);
  return out;
}
