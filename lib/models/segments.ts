// Segments of layers: inputs of a few layers are kept, and a whole segment is computed again from its one checkpoint.

import { requireCount } from '../ops/check.ts';
import type { StepPolicy } from './policy.ts';

/**
 * Sizes of as many segments as there are slots, from the first to the last, so that at most `slots` inputs of layers live at once.
 *
 * After the forward the S checkpoints live, one a segment. The backward goes from the last segment to the first. When it comes to the
 * segment with c checkpoints left, its own included, S - c checkpoints are done with; computing its n layers again makes n - 1 inner
 * inputs. c + n - 1 <= S where n <= S - c + 1. So the last segment (c = S) has one layer at most, the first (c = 1) at most S, and S slots
 * serve 1 + 2 + … + S = S(S+1)/2 layers. Inner inputs go one by one while the segment is worked on, and all before the next segment.
 *
 * Every segment's last layer runs twice, since nothing inside of the segment needs its output; the other L - S layers run three times.
 * Bounds grow toward the first segment. Each, from the last, takes its share of the layers that are left or its bound: where the share is
 * smaller, all bounds before it are as large as the share.
 * @throws RangeError where slots are too few for the layers, or more than them
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

/** Sizes of what is computed again at once, from the first layer to the last: 1 where each layer is alone. */
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
