// The search for the longest length that fits.

export interface LongestFitOptions {
  /** Where the search begins; a good guess saves tries. */
  guess: number;
  /** Lengths are multiples of it. */
  granule: number;
  /** The longest that is tried. */
  most: number;
}

/**
 * A length that fits and whose next longer one, by one granule, does not, or is over `most`; 0 where none was found down to one granule. It goes
 * from the guess in steps that double until it has one that fits and one that does not, and halves the way between them. Where memory does
 * not only grow with the length, a still longer one may fit beyond one that does not.
 */
export function longestFit(fits: (length: number) => boolean, { guess, granule, most }: LongestFitOptions): number {
  const last = Math.floor(most / granule);
  const tries = (count: number) => fits(count * granule);
  let fitting = 0;
  let failing = last + 1;
  let next = Math.min(Math.max(1, Math.round(guess / granule)), last);
  for (let step = 1; failing - fitting > 1; step *= 2) {
    if (tries(next)) {
      fitting = next;
      if (failing <= last) break;
      next = Math.min(next + step, last);
    } else {
      failing = next;
      if (fitting > 0) break;
      next = Math.max(next - step, 1);
    }
  }
  while (failing - fitting > 1) {
    const middle = Math.floor((fitting + failing) / 2);
    if (tries(middle)) fitting = middle;
    else failing = middle;
  }
  return fitting * granule;
}
