// How a run trades memory for operations.
import type { Decoder } from '../models/decoder.ts';
import type { StepPolicy } from '../models/policy.ts';
import { planModelStep } from '../step/step_policies.ts';
import type { RunConfig } from './config.ts';
import type { RunData } from './run_data.ts';

/** The fastest policy that fits the device for the longest sequences, with what the configuration fixes. */
export function choosePolicy(config: RunConfig, model: Decoder, { training, validation }: RunData): StepPolicy {
  const { chunkSizes, mlpSave, recompute, slots } = config;
  const fixed: Partial<StepPolicy> = {};
  if (chunkSizes.mlp !== 'auto') fixed.mlpChunkSize = chunkSizes.mlp;
  if (chunkSizes.loss !== 'auto') fixed.lossChunkSize = chunkSizes.loss;
  if (mlpSave !== 'auto') fixed.mlpSave = mlpSave;
  if (recompute !== 'auto') fixed.recompute = recompute;
  if (slots !== 'auto') fixed.slots = slots;
  return planModelStep(model, {
    B: config.batchSize,
    T: Math.max(training.T, validation?.T ?? 0),
    accumulationSteps: config.accumulationSteps,
    isPacked: training.isPacked,
    masterWeights: config.masterWeights,
    stateBits: config.optimizer.stateBits,
    inBackward: config.optimizer.inBackward,
    fixed,
  });
}
