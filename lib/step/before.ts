// Why the planner chose a policy: the one that it tried just before.
import type { DecoderConfig } from '../models/decoder_config.ts';
import type { StepPolicy } from '../models/policy.ts';
import type { Plan, PlanOptions } from './plan.ts';
import { simulateStep } from './simulate.ts';

/** A policy, and the bytes that a step reserves under it. */
export interface PolicyMemory {
  policy: StepPolicy;
  reservedBytes: number;
}

/** The policy that was tried just before the plan's, and what it takes; null: the plan's is the first. */
export function policyBefore(config: DecoderConfig, options: PlanOptions, { before }: Plan): PolicyMemory | null {
  const { memoryLimit, fixed, ...step } = options;
  return before && { policy: before, reservedBytes: simulateStep({ config, ...step, policy: before }).reservedBytes };
}
