// The longest sequences whose step fits, for each way to trade memory for operations.

import type { DecoderConfig } from '../models/decoder_config.ts';
import type { StepPolicy } from '../models/policy.ts';
import { longestFit } from './longest_fit.ts';
import { type PlanOptions, policiesOf, rowsOf } from './plan.ts';
import { simulateStep, stepFits } from './simulate.ts';

export interface LongestOptions extends Omit<PlanOptions, 'T'> {
  /** Lengths are multiples of it. @default 1024 */
  granule?: number;
  /** The longest that is tried. @default 2^24 */
  most?: number;
}

/** A rung of the planner's ladder: what a policy says beside the sizes of chunks. */
export type Rung = Omit<StepPolicy, 'mlpChunkSize' | 'lossChunkSize'>;

export interface LongestStep {
  rung: Rung;
  /** 0: not even one granule fits. */
  T: number;
}

/**
 * The longest T of each rung, the one with the fewest operations at T = granule first: `planStep` of that T has a policy of that rung that fits, and has none for
 * T + granule. A rung that offloads is told with as many inputs as `hostMemoryLimit` has room for at this T. Memory does not always grow with T (chunks are near equal parts of the rows), so that a still longer T may fit
 * where T + granule does not. The same options give the same answer.
 * @throws RangeError where memoryLimit is infinite: then nothing bounds T
 */
export function longestSteps(config: DecoderConfig, options: LongestOptions): LongestStep[] {
  const { B, memoryLimit, hostMemoryLimit = 0, fixed = {}, granule = 1024, most = 2 ** 24, ...rest } = options;
  if (!Number.isFinite(memoryLimit)) {
    throw new RangeError(`longestSteps: memoryLimit must be a finite number of bytes, got ${memoryLimit}`);
  }
  const policies = (T: number) => policiesOf(config, rowsOf({ B, T, ...rest }), fixed, { T, ...rest, hostMemoryLimit });
  const step = { config, B, hostMemoryLimit, ...rest };
  const keys = new Set(policies(granule).map(keyOf));
  let guess = 16 * granule;
  return [...keys].map((key) => {
    const ofRung = (T: number) => policies(T).filter((policy) => keyOf(policy) === key);
    const smallest = (T: number) => {
      const policy = ofRung(T).at(-1); // none where the host has no room for an input
      return policy ? simulateStep({ ...step, T, policy }).reservedBytes : Infinity;
    };
    // Memory is nearly linear in T, far from 0.
    const [half, whole] = [smallest(guess / 2), smallest(guess)];
    const estimate = guess + ((memoryLimit - whole) * (guess / 2)) / Math.max(whole - half, 1);
    const near = Number.isFinite(whole) ? estimate : granule;
    const search = { guess: Math.min(Math.max(near, granule), most), granule, most };
    const fits = (T: number) =>
      ofRung(T)
        .reverse()
        .some((policy) => stepFits({ ...step, T, policy, memoryLimit }));
    const T = longestFit(fits, search);
    guess = Math.max(T - (T % (2 * granule)), 2 * granule);
    return { rung: rungOf(ofRung(Math.max(T, granule)).at(-1)!), T };
  });
}

function rungOf({ mlpChunkSize, lossChunkSize, ...rung }: StepPolicy): Rung {
  return rung;
}

/** Tells rungs apart, but not by how many inputs they offload, which depends on T. */
function keyOf(policy: StepPolicy): string {
  const { offloadedInputs = 0, ...rung } = rungOf(policy);
  return JSON.stringify({ ...rung, offloads: offloadedInputs > 0 });
}
