// What a policy is and why it was chosen, for people.
import type { StepPolicy } from '../models/policy.ts';
import { formatBytes } from '../runtime/memory/statistics.ts';
import type { PolicyMemory } from '../step/before.ts';
import type { Rung } from '../step/longest.ts';

/** 1234567 → '1,234,567'. */
export const whole = (count: number) => count.toLocaleString('en');

/** What a policy keeps and the sizes of its chunks. */
export function policyText({ mlpChunkSize, lossChunkSize, ...rung }: StepPolicy): string {
  return `${rungText(rung)}; chunks of ${whole(mlpChunkSize)} tokens in the MLP, ${whole(lossChunkSize)} in the head`;
}

export function rungText(rung: Rung): string {
  const { recompute, mlpSave, ...more } = rung;
  return Object.entries({ recompute, ...more, mlpSave })
    .map(([name, value]) => `${name} ${value}`)
    .join(', ');
}

/** @param before the policy just before the chosen one; null: it is the first */
export function whyText(before: PolicyMemory | null, memoryLimit: number): string {
  if (!before) return `the fastest of all fits into ${formatBytes(memoryLimit)}`;
  return `the fastest that fits: the one before it (${policyText(before.policy)}) takes ${formatBytes(before.reservedBytes)}`;
}
