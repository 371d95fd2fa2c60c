// Chooses chunk sizes and what to recompute: the fastest policy whose step, run on `meta`, fits.
import type { Target } from '../device.ts';
import type { Dtype, GradientDtype } from '../dtype.ts';
import { OutOfMemoryError } from '../memory/errors.ts';
import type { MemoryStatistics } from '../memory/statistics.ts';
import type { DecoderConfig } from '../models/config.ts';
import type { StepPolicy } from '../models/decoder.ts';
import type { LoraLayout, LoraOptions } from '../models/lora.ts';
import { defaultChunkSize, evenChunkSize } from '../ops/workspace.ts';
import { simulateStep } from './simulate.ts';

export interface PlanOptions {
  B: number;
  T: number;
  dtype?: Dtype;
  gradientDtype?: GradientDtype;
  isPacked?: boolean;
  lora?: LoraOptions | LoraLayout | null;
  masterWeights?: boolean;
  accumulationSteps?: number;
  like?: Target;
  /** Bytes that a step may reserve. */
  memoryLimit: number;
  /** Parts of the policy that are fixed. */
  fixed?: Partial<StepPolicy>;
}

export interface Plan {
  policy: StepPolicy;
  /** Memory of a step under it. */
  memory: MemoryStatistics;
}

/** Everything saved and nothing chunked: ordinary training. */
export function plainPolicy(N: number): StepPolicy {
  return { mlpChunkSize: N, lossChunkSize: N, mlpSave: 'gateUp', recompute: 'none' };
}

/** The same policy with one chunk for all rows. */
export function unchunked(policy: StepPolicy, N: number): StepPolicy {
  return { ...policy, mlpChunkSize: N, lossChunkSize: N };
}

/**
 * Tries policies from the fastest to the smallest and returns the first whose step fits. Products run at full speed with chunks of
 * C rows and 1024, so chunks shrink below that only where nothing else fits.
 * @throws OutOfMemoryError of the smallest policy where none fits
 */
export function planStep(config: DecoderConfig, options: PlanOptions): Plan {
  const { B, T, memoryLimit, fixed = {}, ...rest } = options;
  let failure: unknown;
  for (const candidate of candidates(B * T, config.hiddenSize)) {
    const policy = { ...candidate, ...fixed };
    try {
      return { policy, memory: simulateStep({ config, B, T, policy, memoryLimit, ...rest }) };
    } catch (error) {
      if (!(error instanceof OutOfMemoryError)) throw error;
      failure = error;
    }
  }
  throw failure;
}

/** Policies, the fewest operations first; among equals larger chunks first. */
function* candidates(N: number, C: number): Generator<StepPolicy> {
  const chunk = defaultChunkSize(N, C);
  const chunks = [evenChunkSize(N, 8 * chunk), evenChunkSize(N, 2 * chunk), chunk];
  const small = [chunk / 2, chunk / 4, chunk / 8].map((size) => Math.max(1, Math.floor(size)));
  const order: Pick<StepPolicy, 'mlpSave' | 'recompute'>[] = [
    { mlpSave: 'gateUp', recompute: 'none' },
    { mlpSave: 'input', recompute: 'none' },
    { mlpSave: 'input', recompute: 'attention' },
    { mlpSave: 'input', recompute: 'layer' },
  ];
  for (const saved of order) for (const size of chunks) yield { mlpChunkSize: size, lossChunkSize: size, ...saved };
  for (const size of small) yield { mlpChunkSize: size, lossChunkSize: size, mlpSave: 'input', recompute: 'layer' };
}
