// Chooses chunk sizes and recomputation: the fastest policy whose step fits in memory, found by running steps on `meta`.

import type { DecoderConfig } from '../models/decoder_config.ts';
import type { StepPolicy } from '../models/policy.ts';
import { fewestSlots } from '../models/segments.ts';
import { defaultChunkSize, evenChunkSize } from '../ops/workspace.ts';
import { either, OutOfMemoryError } from '../runtime/memory/errors.ts';
import { formatBytes, type MemoryStatistics } from '../runtime/memory/statistics.ts';
import { longestFit } from './longest_fit.ts';
import { type StepShape, simulateStep, stepFits } from './simulate.ts';

export interface PlanOptions extends StepShape {
  /** Most bytes that a step may reserve. */
  memoryLimit: number;
  /** Parts of the policy that the planner does not choose. */
  fixed?: Partial<StepPolicy>;
}

export interface Plan {
  policy: StepPolicy;
  /** Memory of a step under it. */
  memory: MemoryStatistics;
}

/** Saves everything and chunks nothing: ordinary training. */
export function plainPolicy(N: number): StepPolicy {
  return { mlpChunkSize: N, lossChunkSize: N, mlpSave: 'gateUp', recompute: 'none' };
}

/** The same policy with one chunk for all rows. */
export function unchunked(policy: StepPolicy, N: number): StepPolicy {
  return { ...policy, mlpChunkSize: N, lossChunkSize: N };
}

/**
 * Tries policies from the fastest to the smallest and returns the first whose step fits. Products run at full speed with chunks of
 * at least C and 1024 rows, so smaller chunks come last.
 * @throws OutOfMemoryError if no policy fits; it says how much a step needs at least, and what would help
 */
export function planStep(config: DecoderConfig, options: PlanOptions): Plan {
  const { B, T, memoryLimit, fixed = {}, ...rest } = options;
  let last: { policy: StepPolicy; error: OutOfMemoryError } | null = null;
  for (const policy of policiesOf(config, B * T, fixed)) {
    try {
      return { policy, memory: simulateStep({ config, B, T, policy, memoryLimit, ...rest }) };
    } catch (error) {
      if (!(error instanceof OutOfMemoryError)) throw error;
      last = { policy, error };
    }
  }
  throw nothingFits(config, options, last!.policy, last!.error);
}

/** The candidate with the fixed parts; only 'segments' has slots. */
function combined(candidate: StepPolicy, fixed: Partial<StepPolicy>): StepPolicy {
  const { slots, ...policy } = { ...candidate, ...fixed };
  return policy.recompute === 'segments' && slots !== undefined ? { ...policy, slots } : policy;
}

/** The error if nothing fits, with remedies. A step of one token shows how much memory is needed without activations. */
function nothingFits(
  config: DecoderConfig,
  options: PlanOptions,
  policy: StepPolicy,
  error: OutOfMemoryError,
): OutOfMemoryError {
  const { B, T, memoryLimit, fixed = {}, ...rest } = options;
  const needed = simulateStep({ config, B, T, policy, ...rest }).reservedBytes;
  const state = simulateStep({ config, B: 1, T: 1, policy, ...rest }).reservedBytes;
  const {
    dtype = 'float32',
    gradientDtype,
    masterWeights = true,
    stateBits = 32,
    lora,
    accumulationSteps = 1,
    inBackward = false,
  } = rest;
  const ofState: string[] = [];
  if (!lora) ofState.push('LoRA');
  if (dtype === 'float32') ofState.push("dtype: 'bfloat16'");
  const isAdamW = !rest.makeOptimizer;
  if (!lora && isAdamW && stateBits > 8) ofState.push('stateBits: 8');
  if (!lora && dtype === 'bfloat16') {
    if (isAdamW && masterWeights) ofState.push('masterWeights: false');
    if (gradientDtype !== 'bfloat16' && accumulationSteps === 1 && !inBackward)
      ofState.push("gradientDtype: 'bfloat16'");
  }
  if (!lora && !inBackward && accumulationSteps === 1) ofState.push('optimizer.inBackward');
  const longest = state > memoryLimit ? 0 : longestBelow(config, options, { state, needed });
  const ofActivations = [`a shorter sequence${longest > 0 ? ` (T ${longest} fits)` : ''}`];
  if (B > 1) ofActivations.push('a smaller batch');
  if (Object.keys(fixed).length > 0) ofActivations.unshift(`leaving ${Object.keys(fixed).join(', ')} to the planner`);
  const [what, remedies] =
    state > memoryLimit
      ? [`weights, gradients and optimizer state alone take ${formatBytes(state)}`, ofState]
      : [
          `a step takes at least ${formatBytes(needed)}, of which weights, gradients and optimizer state are ${formatBytes(state)}`,
          [...ofActivations, ...ofState],
        ];
  return new OutOfMemoryError(
    `planStep: no chunk size or recomputation makes a step fit in ${formatBytes(memoryLimit)}: ${what}. ` +
      `${either([...remedies, 'a larger memoryLimit'])} would help.`,
    error,
    error,
  );
}

/** The longest T that fits, if the options' T does not, to within a sixteenth of it. `bytes`: needed with T 1 and with the options' T. */
function longestBelow(
  config: DecoderConfig,
  { B, T: failing, memoryLimit, fixed, ...rest }: PlanOptions,
  bytes: { state: number; needed: number },
): number {
  const granule = Math.min(1024, 2 ** Math.max(0, Math.floor(Math.log2(failing / 16))));
  const share = (memoryLimit - bytes.state) / (bytes.needed - bytes.state);
  const fits = (T: number) =>
    policiesOf(config, B * T, fixed)
      .reverse()
      .some((policy) => stepFits({ config, B, T, policy, memoryLimit, ...rest }));
  return longestFit(fits, { guess: share * failing, granule, most: failing - 1 });
}

/** The policies that `planStep` tries for N rows, in order and without repetitions. */
export function policiesOf(config: DecoderConfig, N: number, fixed: Partial<StepPolicy> = {}): StepPolicy[] {
  const all = [...candidates(N, config, fixed)].map((candidate) => combined(candidate, fixed));
  return [...new Map(all.map((policy) => [JSON.stringify(policy), policy])).values()];
}

/** What policies keep, in order of their operations, fewest first. */
function ladder(L: number, { recompute }: Partial<StepPolicy>): Pick<StepPolicy, 'mlpSave' | 'recompute' | 'slots'>[] {
  const fewest = fewestSlots(L);
  const slots = [...new Set([Math.ceil((3 * L) / 4), Math.ceil(L / 2), fewest])].filter((S) => S < L && S >= fewest);
  const segments = slots.map((slots) => ({ mlpSave: 'input', recompute: 'segments', slots }) as const);
  if (recompute === 'segments')
    return [...segments.map((rung) => ({ ...rung, mlpSave: 'gateUp' }) as const), ...segments];
  return [
    { mlpSave: 'gateUp', recompute: 'none' },
    { mlpSave: 'input', recompute: 'none' },
    { mlpSave: 'input', recompute: 'attention' },
    { mlpSave: 'input', recompute: 'layer' },
    ...segments,
  ];
}

/** Policies, the fewest operations first; among equals larger chunks first. */
function* candidates(
  N: number,
  { hiddenSize: C, layers }: DecoderConfig,
  fixed: Partial<StepPolicy>,
): Generator<StepPolicy> {
  const chunk = defaultChunkSize(N, C);
  const chunks = [evenChunkSize(N, 8 * chunk), evenChunkSize(N, 2 * chunk), chunk];
  const small = [chunk / 2, chunk / 4, chunk / 8].map((size) => Math.max(1, Math.floor(size)));
  const rungs = ladder(layers.length, fixed);
  for (const saved of rungs) for (const size of chunks) yield { mlpChunkSize: size, lossChunkSize: size, ...saved };
  for (const size of small) yield { mlpChunkSize: size, lossChunkSize: size, ...rungs.at(-1)! };
}
