// run.json: what is known of a run beside its configuration and its numbers; the report is made from it.
import type { StepPolicy } from '../models/policy.ts';
import type { StepTimeline } from '../step/timeline.ts';

export const FACTS_FILE = 'run.json';

export interface RunFacts {
  /** Of this file. */
  format: 1;
  /** When the run was started or continued, in ISO 8601. */
  started: string;
  /** Of this package and of Node. */
  versions: { minisequence: string; node: string };
  machine: { name: string; device: string; system: string; memoryLimit: number | null };
  model: { type: string; parameters: number; trained: number; layers: number };
  data: { tokens: number; sequences: number; longestSequence: number; isPacked: boolean };
  steps: { total: number; before: number };
  policy: StepPolicy;
  /** Bytes that a step reserves: ordinary training, the same policy without chunks, this run. */
  plan: { plain: number; unchunked: number; miniSequence: number };
  timeline: StepTimeline;
  /** null while it runs, or where it was killed. */
  end: { at: string; finished: boolean; error: string | null } | null;
}
