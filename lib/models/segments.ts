// Segments of layers. Only the first layer of a segment keeps its input, and the backward recomputes the whole segment from it.

import { requireCount } from '../ops/check.ts';
import type { DecoderConfig } from './decoder_config.ts';
import type { StepPolicy } from './policy.ts';

/** What a layer keeps, in units of its input. */
export interface LayerUnits {
  /** Beside inputs, from the forward to its backward. @default 0 */
  freed?: number;
  /** Inside a segment, from when that is computed again to its backward: its input and what it keeps beside. @default 1 */
  inner?: number;
}

/** What of a policy segments depend on. */
type Keeps = Pick<StepPolicy, 'recompute' | 'slots' | 'keepAttention'>;

/**
 * Sizes of the segments from first to last, one for each slot, chosen so that at most `slots` inputs of layers exist at once.
 *
 * With S slots there are S checkpoints after the forward, one per segment. The backward goes from the last segment to the first. At a
 * segment of n layers, c checkpoints are left, its own included, and recomputing its layers makes n - 1 inner inputs. c + n - 1 <= S means
 * n <= S - c + 1. So the last segment (c = S) has at most one layer and the first (c = 1) at most S, and S slots suffice for
 * 1 + 2 + … + S = S(S+1)/2 layers. The backward frees the inner inputs one by one, all of them before the next segment.
 *
 * If each layer also keeps as much as `freed` inputs until its backward, m layers that are done make room for freed·m more inner inputs:
 * n <= S - c + 1 + freed·m. With freed = 1 that is 1, 3, 7, 15, … layers from the last segment on, and 5 slots suffice for 57 layers.
 *
 * If each inner layer takes as much as `inner` inputs, n <= (S - c) / inner + 1. With inner = 2 that is 1, 1, 2, 2, 3, 3, … layers from the
 * last segment on, and 11 slots suffice for 36 layers.
 *
 * The last layer of a segment runs as often as it would alone, since nothing inside the segment needs its output; the other L - S layers run
 * once more. The bounds grow toward the first segment. From the last segment on, each takes its share of the remaining layers, but at most
 * its bound.
 * @throws RangeError if there are too few slots for the layers, or more slots than layers
 */
export function segmentSizes(numLayers: number, slots: number, units: LayerUnits = {}): number[] {
  requireCount('segments', 'slots', slots);
  const sizes = slots > numLayers ? null : distributed(numLayers, slots, units);
  if (!sizes) {
    const fewest = fewestSlots(numLayers, units);
    throw new RangeError(`segments: ${numLayers} layers need ${fewest} to ${numLayers} slots, got ${slots}`);
  }
  return sizes;
}

/** The sizes; null if there are too few slots. */
function distributed(numLayers: number, slots: number, { freed = 0, inner = 1 }: LayerUnits): number[] | null {
  const sizes: number[] = [];
  let left = numLayers;
  for (let c = slots; c > 0; c--) {
    const bound = 1 + Math.floor((slots - c + freed * (numLayers - left)) / inner);
    const size = Math.min(bound, Math.ceil(left / c));
    sizes.unshift(size);
    left -= size;
  }
  return left === 0 ? sizes : null;
}

/** The smallest number of slots that suffices for L layers; see segmentSizes(). */
export function fewestSlots(numLayers: number, units: LayerUnits = {}): number {
  let slots = 1;
  while (!distributed(numLayers, slots, units)) slots++;
  return slots;
}

/** What layers keep under this policy, attention's log-sum-exp aside. */
export function unitsOf(
  { hiddenSize, layers }: DecoderConfig,
  { recompute, keepAttention = false }: Keeps,
): LayerUnits {
  const outputs = layers.map(({ attention: { numHeads, headSize } }) => (numHeads * headSize) / hiddenSize);
  if (recompute === 'attentionSegments') return { freed: Math.min(...outputs) };
  return keepAttention ? { inner: 1 + Math.max(...outputs) } : {};
}

/**
 * Numbers of layers that are recomputed together, from first to last; 1 for each layer unless the policy has segments.
 * @throws RangeError if its `slots` do not serve, or for `keepAttention` without 'segments'
 */
export function segmentsOf(config: DecoderConfig, policy: Keeps): number[] {
  const { recompute, slots, keepAttention = false } = policy;
  if (keepAttention && recompute !== 'segments') {
    throw new RangeError(`segments: keepAttention is for recompute 'segments', got '${recompute}'`);
  }
  const L = config.layers.length;
  if (!hasSlots(recompute)) return Array.from({ length: L }, () => 1);
  const units = unitsOf(config, policy);
  return segmentSizes(L, slots ?? fewestSlots(L, units), units);
}

/** Whether a policy with this `recompute` has slots. */
export function hasSlots(recompute: StepPolicy['recompute'] | 'auto'): boolean {
  return recompute === 'segments' || recompute === 'attentionSegments';
}
