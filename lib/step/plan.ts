// Chooses chunk sizes and recomputation: the fastest policy whose step fits in memory, found by running steps on `meta`.

import type { DecoderConfig } from '../models/decoder_config.ts';
import { mostHeadGroups } from '../models/head_groups.ts';
import { canOffload, mostOffloaded, offloadedBytes } from '../models/offload.ts';
import type { StepPolicy } from '../models/policy.ts';
import { fewestSlots, hasSlots, unitsOf } from '../models/segments.ts';
import { tokensOfRank } from '../models/sequence_part.ts';
import { defaultChunkSize, evenChunkSize } from '../ops/workspace.ts';
import { either, OutOfMemoryError } from '../runtime/memory/errors.ts';
import { formatBytes, type MemoryStatistics } from '../runtime/memory/statistics.ts';
import { fewestOffloaded } from './fewest_offloaded.ts';
import { longestFit } from './longest_fit.ts';
import { stepOperations } from './operations.ts';
import { type StepShape, simulateStep, stepFits } from './simulate.ts';

export interface PlanOptions extends StepShape {
  /** Most bytes that a step may reserve. */
  memoryLimit: number;
  /** Most bytes of host memory, for inputs that the forward saves. @default 0 */
  hostMemoryLimit?: number;
  /** Parts of the policy that the planner does not choose. */
  fixed?: Partial<StepPolicy>;
}

export interface Plan {
  policy: StepPolicy;
  /** Memory of a step under it. */
  memory: MemoryStatistics;
  /** The last policy before it that was tried and does not fit; null: it is the first. */
  before: StepPolicy | null;
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
 * at least C and 1024 rows, so smaller chunks come last. Within `hostMemoryLimit` it offloads as few inputs as make the policy fit.
 * @throws OutOfMemoryError if no policy fits; it says how much a step needs at least, and what would help
 * @throws RangeError for fixed `slots` or `offloadedInputs` without a fixed `recompute` that has them
 */
export function planStep(config: DecoderConfig, options: PlanOptions): Plan {
  const { B, T, memoryLimit, hostMemoryLimit = 0, fixed = {}, ...rest } = options;
  const simulate = (policy: StepPolicy) =>
    simulateStep({ config, B, T, policy, memoryLimit, hostMemoryLimit, ...rest });
  let last: { policy: StepPolicy; error: OutOfMemoryError } | null = null;
  const N = rowsOf(options);
  for (const policy of policiesOf(config, N, fixed, { T, ...rest, hostMemoryLimit })) {
    try {
      const plan = { policy, memory: simulate(policy), before: last?.policy ?? null };
      return fixed.offloadedInputs === undefined ? fewestOffloaded(plan, simulate) : plan;
    } catch (error) {
      if (!(error instanceof OutOfMemoryError)) throw error;
      if (offloadedBytes(config, policy, { N, dtype: rest.dtype ?? 'float32' }) > hostMemoryLimit) throw error;
      last = { policy, error };
    }
  }
  throw nothingFits(config, options, last!.policy, last!.error);
}

/** How the paper trains (Luo et al. 2024): Adam in bf16 inside the backward, each layer recomputed from its input, mini-sequences. */
export const paperSetting = {
  dtype: 'bfloat16',
  masterWeights: false,
  stateBits: 16,
  inBackward: true,
  fixed: { recompute: 'layer', mlpSave: 'input', attentionHeadGroups: 1 },
} as const satisfies Partial<PlanOptions>;

/** The candidate with the fixed parts; only policies with segments have slots, and one group of heads goes without saying. */
function combined(candidate: StepPolicy, fixed: Partial<StepPolicy>): StepPolicy {
  const all = { ...candidate, ...fixed };
  const { slots, keepAttention = false, attentionHeadGroups = 1, offloadedInputs = 0, ...policy } = all;
  return {
    ...policy,
    ...(hasSlots(policy.recompute) && slots !== undefined && { slots }),
    ...(keepAttention && { keepAttention }),
    ...(attentionHeadGroups !== 1 && { attentionHeadGroups }),
    ...(offloadedInputs > 0 && { offloadedInputs }),
  };
}

/** The error if nothing fits, with remedies. A step of one token shows how much memory is needed without activations. */
function nothingFits(
  config: DecoderConfig,
  options: PlanOptions,
  policy: StepPolicy,
  error: OutOfMemoryError,
): OutOfMemoryError {
  const { B, T, memoryLimit, hostMemoryLimit = 0, fixed = {}, ...rest } = options;
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
  const most = (limit: number) =>
    mostOffloaded(
      config,
      { ...policy, recompute: fixed.recompute ?? 'layer', keepAttention: fixed.keepAttention },
      { N: rowsOf(options), dtype, hostMemoryLimit: limit },
    );
  if (most(hostMemoryLimit) < most(Infinity)) ofActivations.push('a larger hostMemoryLimit');
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
  { B, T: failing, memoryLimit, hostMemoryLimit = 0, fixed, ...rest }: PlanOptions,
  bytes: { state: number; needed: number },
): number {
  const granule = Math.min(1024, 2 ** Math.max(0, Math.floor(Math.log2(failing / 16))));
  const share = (memoryLimit - bytes.state) / (bytes.needed - bytes.state);
  const fits = (T: number) =>
    policiesOf(config, rowsOf({ B, T, ...rest }), fixed, { T, ...rest, hostMemoryLimit })
      .reverse()
      .some((policy) => stepFits({ config, B, T, policy, memoryLimit, hostMemoryLimit, ...rest }));
  return longestFit(fits, { guess: share * failing, granule, most: failing - 1 });
}

/** Rows of a micro-batch on one rank. */
export function rowsOf({ B, T, sequence = 1 }: Pick<StepShape, 'B' | 'T' | 'sequence'>): number {
  return B * tokensOfRank(T, sequence);
}

/** What the order of policies depends on, besides the model's config and the rows. */
interface Planned extends Pick<PlanOptions, 'lora' | 'dtype' | 'hostMemoryLimit' | 'sequence'> {
  /** Length of a sequence, which the cost of attention depends on. @default N · sequence */
  T?: number;
}

/**
 * The policies that `planStep` tries for N rows, in order and without repetitions. Those that offload do so with as many inputs as the rung
 * saves and as `hostMemoryLimit` has room for.
 * @throws RangeError for fixed `slots` or `offloadedInputs` without a fixed `recompute` that has them
 */
export function policiesOf(
  config: DecoderConfig,
  N: number,
  fixed: Partial<StepPolicy> = {},
  { sequence = 1, T = N * sequence, lora, dtype = 'float32', hostMemoryLimit = 0 }: Planned = {},
): StepPolicy[] {
  const { slots, recompute = 'auto' } = fixed;
  if (slots !== undefined && !hasSlots(recompute)) {
    throw new RangeError(
      `planStep: fixed.slots ${slots} are those of fixed.recompute 'segments' and 'attentionSegments', got ${recompute}`,
    );
  }
  if (fixed.keepAttention && recompute !== 'segments') {
    throw new RangeError(`planStep: fixed.keepAttention is that of fixed.recompute 'segments', got ${recompute}`);
  }
  if (fixed.offloadedInputs && !canOffload(recompute)) {
    throw new RangeError(
      `planStep: fixed.offloadedInputs ${fixed.offloadedInputs} are those of fixed.recompute 'attention', 'layer' and 'segments', got ${recompute}`,
    );
  }
  const most = (policy: StepPolicy) => mostOffloaded(config, policy, { N, dtype, hostMemoryLimit });
  const operations = (policy: StepPolicy) =>
    stepOperations(config, { B: Math.ceil(N / tokensOfRank(T, sequence)), T, policy, lora }).total;
  const all = candidates(N, config, fixed, { operations, most, groups: mostHeadGroups(config, sequence) }).map(
    (candidate) => combined(candidate, fixed),
  );
  return [...new Map(all.map((policy) => [JSON.stringify(policy), policy])).values()];
}

type Rung = Omit<StepPolicy, 'mlpChunkSize' | 'lossChunkSize'>;

/**
 * What policies keep, from the most memory to the least, with up to three numbers of slots. The place of 'attentionSegments' depends on the
 * model. Segments keep attention's output where their slots suffice for it.
 */
function ladder(config: DecoderConfig, fixed: Partial<StepPolicy>, groups: number): Rung[] {
  const L = config.layers.length;
  const inSlots = (what: Pick<Rung, 'recompute' | 'mlpSave' | 'keepAttention'>, isFixed: boolean): Rung[] => {
    const fewest = fewestSlots(L, unitsOf(config, what));
    if (!isFixed && fixed.slots !== undefined && fixed.slots < fewest) return [];
    const slots = [Math.ceil((3 * L) / 4), Math.ceil(L / 2), fewest].filter((S) => S < L && S >= fewest);
    return [...new Set(isFixed ? [...slots, fewest] : slots)].map((slots) => ({ ...what, slots }));
  };
  const inSegments = (recompute: StepPolicy['recompute'], mlpSave: StepPolicy['mlpSave'] = 'input'): Rung[] => {
    const keeping = { recompute, mlpSave, keepAttention: true };
    if (fixed.keepAttention) return inSlots(keeping, true);
    const plain = inSlots({ recompute, mlpSave }, recompute === fixed.recompute);
    if (recompute !== 'segments' || fixed.keepAttention === false) return plain;
    return [...inSlots(keeping, false), ...plain];
  };
  /** Each also with attention's heads in groups, where the model allows that. What keeps attention's output gains nothing by them. */
  const alsoInGroups = (rungs: Rung[]): Rung[] =>
    groups === 1 ? rungs : rungs.flatMap((rung) => [rung, { ...rung, attentionHeadGroups: groups }]);
  const { recompute } = fixed;
  if (recompute === 'segments') return [...inSegments(recompute, 'gateUp'), ...alsoInGroups(inSegments(recompute))];
  if (recompute === 'attentionSegments') return [...inSegments(recompute, 'gateUp'), ...inSegments(recompute)];
  if (recompute) return [{ mlpSave: 'gateUp', recompute }, ...alsoInGroups([{ mlpSave: 'input', recompute }])];
  return [
    { mlpSave: 'gateUp', recompute: 'none' },
    { mlpSave: 'input', recompute: 'none' },
    { mlpSave: 'input', recompute: 'attention' },
    ...inSegments('attentionSegments'),
    ...alsoInGroups([{ mlpSave: 'input', recompute: 'layer' }]),
    ...alsoInGroups(inSegments('segments')),
  ];
}

/**
 * The fewest operations first, among equals larger chunks first, and offload last; at last small chunks of what takes the least memory.
 * Where `recompute` is fixed, what is kept goes from the most memory to the least.
 */
function candidates(
  N: number,
  config: DecoderConfig,
  fixed: Partial<StepPolicy>,
  { operations, most, groups }: Record<'operations' | 'most', (policy: StepPolicy) => number> & { groups: number },
): StepPolicy[] {
  const chunk = defaultChunkSize(N, config.hiddenSize);
  const chunks = [evenChunkSize(N, 8 * chunk), evenChunkSize(N, 2 * chunk), chunk];
  const small = [chunk / 2, chunk / 4, chunk / 8].map((size) => Math.max(1, Math.floor(size)));
  const policy = (rung: Rung, size: number): StepPolicy => ({ mlpChunkSize: size, lossChunkSize: size, ...rung });
  const rungs = ladder(config, fixed, groups);
  const offloading = (rung: Rung): Rung[] => {
    const offloadedInputs = fixed.offloadedInputs === undefined ? most(policy(rung, chunk)) : 0;
    return offloadedInputs > 0 ? [{ ...rung, offloadedInputs }] : [];
  };
  /** Segments that could keep attention's output in as many slots, unless inputs go to the host: inner layers are then most of what they take. */
  const isOutdone = ({ recompute, slots, keepAttention }: Rung) =>
    recompute === 'segments' &&
    !keepAttention &&
    fixed.slots === undefined &&
    !fixed.offloadedInputs &&
    rungs.some((other) => other.keepAttention && other.slots === slots);
  const smallest = rungs.at(-1)!;
  const counted = rungs.map((rung) => ({ rung, total: fixed.recompute ? 0 : operations(policy(rung, chunk)) }));
  counted.sort((a, b) => a.total - b.total);
  return [
    ...counted.flatMap(({ rung }) => [
      ...(isOutdone(rung) ? [] : chunks.map((size) => policy(rung, size))),
      ...offloading(rung).map((rung) => policy(rung, chunk)),
    ]),
    ...[smallest, ...offloading(smallest)].flatMap((rung) => small.map((size) => policy(rung, size))),
  ];
}
