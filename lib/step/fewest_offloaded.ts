// How many inputs a step must offload.
import type { StepPolicy } from '../models/policy.ts';
import { OutOfMemoryError } from '../runtime/memory/errors.ts';
import type { MemoryStatistics } from '../runtime/memory/statistics.ts';

/** A plan of planStep(). */
interface Planned {
  policy: StepPolicy;
  memory: MemoryStatistics;
  before: StepPolicy | null;
}

/**
 * The plan with the fewest `offloadedInputs` that fit, found by halving; the same plan if it offloads none. Its `before` offloads one less.
 * @param simulate throws OutOfMemoryError where a policy does not fit
 */
export function fewestOffloaded(plan: Planned, simulate: (policy: StepPolicy) => MemoryStatistics): Planned {
  let fits = plan;
  let failing = 0; // without any, the rung has been tried
  while ((fits.policy.offloadedInputs ?? 0) - failing > 1) {
    const policy = { ...plan.policy, offloadedInputs: Math.floor((fits.policy.offloadedInputs! + failing) / 2) };
    try {
      fits = { ...plan, policy, memory: simulate(policy) };
    } catch (error) {
      if (!(error instanceof OutOfMemoryError)) throw error;
      failing = policy.offloadedInputs;
    }
  }
  return failing > 0 ? { ...fits, before: { ...plan.policy, offloadedInputs: failing } } : fits;
}
