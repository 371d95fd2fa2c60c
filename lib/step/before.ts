// Why the planner chose a policy: the one that it tried just before.
import type { DecoderConfig } from '../models/decoder_config.ts';
import type { StepPolicy } from '../models/policy.ts';
import { type PlanOptions, policiesOf } from './plan.ts';
import { simulateStep } from './simulate.ts';

/** A policy, and the bytes that a step reserves under it. */
export interface PolicyMemory {
  policy: StepPolicy;
  reservedBytes: number;
}

/** The policy just before this one in the planner's order, and what it takes; null: this one is the first. */
export function policyBefore(config: DecoderConfig, options: PlanOptions, policy: StepPolicy): PolicyMemory | null {
  const { memoryLimit, fixed, ...step } = options;
  const order = policiesOf(config, step.B * step.T, fixed, { T: step.T, lora: step.lora });
  const before = order[order.findIndex((each) => JSON.stringify(each) === JSON.stringify(policy)) - 1];
  return before
    ? { policy: before, reservedBytes: simulateStep({ config, ...step, policy: before }).reservedBytes }
    : null;
}
