// Attention from new tokens to the cached keys and values of all tokens before them, for generation. It has no gradient.
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
 * out (N,H·D) = softmax(scale * q·k, causal) · v, for queries at positions `position`, `position` + 1, …
 * @param q (N,H·D)
 * @param k (S,G·D), filled up to and including the last query's position
 * @param v (S,G·D)
 */
export function cachedAttention(q: Tensor, k: Tensor, v: Tensor, options: CachedAttentionOptions): Tensor {
  const { position, headSize, scale, window, softcap } = options;
  requireOneDevice('cachedAttention', { q, k, v });
  const [N] = q.shape as [number, number];
  if (position + N > k.shape[0]!) {
    throw new RangeError(
      `cachedAttention: ${N} queries from position ${position} on need ${position + N} rows of k, which has ${k.shape[0]}`,
    );
  }
  const out = empty(q.shape, { dtype: q.dtype, device: q.device, category: 'activation' });
  const scores = { T: k.shape[0]!, D: headSize, scale, window, softcap };
  kernels.cached_attention({ q, k, v, documentStart: null }, out, position, scores);
  return out;
}
