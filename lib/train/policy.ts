// How a run trades memory for operations.
import type { Decoder } from '../models/decoder.ts';
import type { StepPolicy } from '../models/policy.ts';
import { planStep } from '../step/plan.ts';
import type { RunConfig } from './config.ts';
import type { RunData } from './run_data.ts';

/** What the configuration fixes, and for the rest the fastest that fits the device, for the longest sequences that there are. */
export function choosePolicy(config: RunConfig, model: Decoder, { training, validation }: RunData): StepPolicy {
  const { chunkSizes, mlpSave, recompute } = config;
  const fixed: Partial<StepPolicy> = {};
  if (chunkSizes.mlp !== 'auto') fixed.mlpChunkSize = chunkSizes.mlp;
  if (chunkSizes.loss !== 'auto') fixed.lossChunkSize = chunkSizes.loss;
  if (mlpSave !== 'auto') fixed.mlpSave = mlpSave;
  if (recompute !== 'auto') fixed.recompute = recompute;
  const { device, dtype, gradientDtype } = model;
  return planStep(model.config, {
    B: config.batchSize,
    T: Math.max(training.T, validation?.T ?? 0),
    dtype,
    gradientDtype,
    accumulationSteps: config.accumulationSteps,
    isPacked: training.isPacked,
    lora: model.lora?.layout,
    masterWeights: config.masterWeights,
    stateBits: config.optimizer.stateBits,
    like: device.target,
    memoryLimit: device.memoryLimit,
    fixed,
  }).policy;
}
