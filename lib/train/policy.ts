// How a run trades memory for operations: planned before its weights are read.
import { adapterLayout } from '../io/adapters.ts';
import type { DecoderConfig } from '../models/decoder_config.ts';
import { offloadedBytes } from '../models/offload.ts';
import type { StepPolicy } from '../models/policy.ts';
import { tokensOfRank } from '../models/sequence_part.ts';
import type { Shards } from '../ranks/shards.ts';
import type { Device } from '../runtime/device.ts';
import { formatBytes } from '../runtime/memory/statistics.ts';
import { type PolicyMemory, policyBefore } from '../step/before.ts';
import { type PlanOptions, planStep } from '../step/plan.ts';
import { simulateStep, stepFits } from '../step/simulate.ts';
import type { RunConfig } from './config.ts';
import type { RunData } from './run_data.ts';

/** A run's policy, and what a step of its longest sequences reserves under it. */
export interface RunPlan extends PolicyMemory {
  /** Most bytes that a step may reserve. */
  memoryLimit: number;
  /** The policy just before it in the planner's order, which does not fit; null: it is the first, or it was not chosen now. */
  before: PolicyMemory | null;
  /** Whether it is that of the run that goes on, so that losses do not change. */
  isContinued: boolean;
}

interface PlannedOn {
  device: Device;
  data: RunData;
  /** That of the run that goes on; null: there is none. */
  earlier: StepPolicy | null;
  /** Whether another is chosen where the earlier one does not fit. */
  mayChange: boolean;
  /** This rank's, where ranks share the optimizer's states. */
  shards: Shards | null;
}

/**
 * The fastest policy that fits the device for the longest sequences, with what the configuration fixes. Reads no weights. Allocates
 * the host memory that it takes.
 * @throws OutOfMemoryError where none fits, with the longest T that does and what would help, or where the host has not the memory for inputs
 * @throws Error where the earlier one does not fit and may not change
 */
export async function planRun(config: RunConfig, modelConfig: DecoderConfig, on: PlannedOn): Promise<RunPlan> {
  const { earlier, mayChange } = on;
  const options = await planOptions(config, modelConfig, on);
  const { memoryLimit, hostMemoryLimit, fixed, ...step } = options;
  /** A run that cannot have its host memory ends here. */
  const prepareHost = (policy: StepPolicy) => {
    const N = config.batchSize * tokensOfRank(on.data.training.T, config.parallel.sequence);
    return on.device.host.prepare(offloadedBytes(modelConfig, policy, { N, dtype: config.dtype }));
  };
  if (earlier) {
    const continued = { config: modelConfig, ...step, policy: earlier };
    const { reservedBytes, hostBytes } = simulateStep(continued);
    if (stepFits({ ...continued, memoryLimit, hostMemoryLimit })) {
      await prepareHost(earlier);
      return { policy: earlier, reservedBytes, memoryLimit, before: null, isContinued: true };
    }
    if (!mayChange) {
      throw new Error(
        `${config.outDir}: the run goes on with the policy that it began with, and a step of that reserves ${formatBytes(reservedBytes)}; ` +
          `memoryLimit is ${formatBytes(memoryLimit)}${hostBytes > 0 ? `; of the host ${formatBytes(hostBytes)}, hostMemoryLimit is ${formatBytes(hostMemoryLimit ?? 0)}` : ''}. Give it more, or --allow-other-machine (allowOtherMachine) to plan again, with other last bits of the losses`,
      );
    }
  }
  const plan = planStep(modelConfig, options);
  const { policy, memory } = plan;
  const before = policyBefore(modelConfig, options, plan);
  await prepareHost(policy);
  return { policy, reservedBytes: memory.reservedBytes, memoryLimit, before, isContinued: false };
}

async function planOptions(
  config: RunConfig,
  modelConfig: DecoderConfig,
  { device, data: { training, validation }, shards }: Pick<PlannedOn, 'device' | 'data' | 'shards'>,
): Promise<PlanOptions> {
  const { chunkSizes, mlpSave, recompute, slots, keepAttention, attentionHeadGroups, offloadedInputs } = config;
  const { dtype, gradientDtype, lora, model } = config;
  const fixed: Partial<StepPolicy> = {};
  if (chunkSizes.mlp !== 'auto') fixed.mlpChunkSize = chunkSizes.mlp;
  if (chunkSizes.loss !== 'auto') fixed.lossChunkSize = chunkSizes.loss;
  if (mlpSave !== 'auto') fixed.mlpSave = mlpSave;
  if (recompute !== 'auto') fixed.recompute = recompute;
  if (slots !== 'auto') fixed.slots = slots;
  if (keepAttention !== 'auto') fixed.keepAttention = keepAttention;
  if (attentionHeadGroups !== 'auto') fixed.attentionHeadGroups = attentionHeadGroups;
  if (offloadedInputs !== 'auto') fixed.offloadedInputs = offloadedInputs;
  const ignoreFields = 'path' in model ? model.ignoreFields : [];
  return {
    B: config.batchSize,
    T: Math.max(training.T, validation?.T ?? 0),
    dtype,
    gradientDtype,
    accumulationSteps: config.accumulationSteps,
    isPacked: training.isPacked,
    sequence: config.parallel.sequence,
    lora:
      lora?.from !== undefined
        ? await adapterLayout(modelConfig, lora.from, { ignoreFields })
        : lora && { ...lora, rank: lora.rank! },
    masterWeights: config.masterWeights,
    stateBits: config.optimizer.stateBits,
    shards,
    inBackward: config.optimizer.inBackward,
    like: device.target,
    memoryLimit: device.memoryLimit,
    hostMemoryLimit: device.host.limit,
    fixed,
  };
}
