// Segments of layers. Only the first layer of a segment keeps its input, and the backward recomputes the whole segment from it.

import { requireCount } from '../ops/check.ts';
import type { StepPolicy } from './policy.ts';

/**
 * Sizes of the segments from first to last, one for each slot, chosen so that at most `slots` inputs of layers exist at once.
 *
 * With S slots there are S checkpoints after the forward, one per segment. The backward goes from the last segment to the first. At a
 * segment of n layers, c checkpoints are left, its own included, and recomputing its layers makes n - 1 inner inputs. c + n - 1 <= S means
 * n <= S - c + 1. So the last segment (c = S) has at most one layer and the first (c = 1) at most S, and S slots suffice for
 * 1 + 2 + … + S = S(S+1)/2 layers. The backward frees the inner inputs one by one, all of them before the next segment.
 *
 * The last layer of a segment runs twice, since nothing inside the segment needs its output; the other L - S layers run three times.
 * The bounds S - c + 1 grow toward the first segment. From the last segment on, each takes its share of the remaining layers, but at most
 * its bound.
 * @throws RangeError if there are too few slots for the layers, or more slots than layers
 */
export function segmentSizes(numLayers: number, slots: number): number[] {
  requireCount('segments', 'slots', slots);
  if (slots > numLayers || (slots * (slots + 1)) / 2 < numLayers) {
    throw new RangeError(
      `segments: ${numLayers} layers need ${fewestSlots(numLayers)} to ${numLayers} slots, got ${slots}`,
    );
  }
  const sizes: number[] = [];
  let left = numLayers;
  for (let c = slots; c > 0; c--) {
    const size = Math.min(slots - c + 1, Math.ceil(left / c));
    sizes.unshift(size);
    left -= size;
  }
  return sizes;
}

/** Numbers of layers that are recomputed together, from first to last; 1 for each layer unless the policy has segments. */
export function segmentsOf(numLayers: number, { recompute, slots }: StepPolicy): number[] {
  if (recompute !== 'segments') return Array.from({ length: numLayers }, () => 1);
  return segmentSizes(numLayers, slots ?? fewestSlots(numLayers));
}

/** The smallest S with S(S+1)/2 >= L. */
export function fewestSlots(numLayers: number): number {
  let slots = 1;
  while ((slots * (slots + 1)) / 2 < numLayers) slots++;
  return slots;
}
