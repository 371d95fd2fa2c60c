// The memory of a training step, from running it on `meta`: the real code, not a formula beside it.

import type { LoraLayout } from '../models/adapter.ts';
import { type Batch, Decoder } from '../models/decoder.ts';
import type { DecoderConfig } from '../models/decoder_config.ts';
import { addLora, type LoraOptions } from '../models/lora.ts';
import type { StepPolicy } from '../models/policy.ts';
import { AdamW } from '../optim/adamw.ts';
import type { StateBits } from '../optim/adamw_state.ts';
import { type DeviceOptions, openDevice, type Target } from '../runtime/device.ts';
import type { Dtype, GradientDtype } from '../runtime/dtype.ts';
import type { MemoryStatistics } from '../runtime/memory/statistics.ts';
import { empty } from '../runtime/tensor.ts';
import { disposeResult, type StepResult, stepParts, stepResult } from './step.ts';

/** A step to run without arithmetic. */
export interface SimulatedStep {
  config: DecoderConfig;
  B: number;
  T: number;
  policy: StepPolicy;
  /** @default 'float32' */
  dtype?: Dtype;
  /** Of the gradients; 'bfloat16' with bf16 parameters and one micro-batch alone. @default 'float32' */
  gradientDtype?: GradientDtype;
  /** Whether sequences hold several documents, told apart by documentStart. @default false */
  isPacked?: boolean;
  /** Adapters instead of full training. */
  lora?: LoraOptions | LoraLayout | null;
  /** Whether bf16 parameters have an f32 copy. @default true */
  masterWeights?: boolean;
  /** Of the optimizer's states. @default 32 */
  stateBits?: StateBits;
  /** Micro-batches of a step. @default 1 */
  accumulationSteps?: number;
  /** The machine to imitate. @default the CPU of this machine */
  like?: Target;
  /** Throws OutOfMemoryError where the step does not fit. */
  memoryLimit?: DeviceOptions['memoryLimit'];
}

/** Memory of one whole step: weights, gradients, optimizer state, activations and workspaces. Peaks as on the real device, to the byte. */
export function simulateStep(step: SimulatedStep): MemoryStatistics {
  const {
    config,
    B,
    T,
    policy,
    dtype = 'float32',
    gradientDtype,
    accumulationSteps = 1,
    isPacked,
    lora,
    masterWeights,
    stateBits,
    like,
    memoryLimit,
  } = step;
  using device = openDevice('meta', { like, memoryLimit });
  using model = new Decoder(config, { device, dtype, gradientDtype });
  if (lora) addLora(model, lora);
  using optimizer = new AdamW(model.trainableParameters(), { masterWeights, stateBits });
  const N = B * T;
  const makeBatch = (): Batch => ({
    inputs: empty([N], { dtype: 'int32', device }),
    targets: empty([N], { dtype: 'int32', device }),
    T,
    documentStart: isPacked ? empty([N], { dtype: 'int32', device }) : null,
  });
  const results: StepResult[] = [];
  try {
    for (let i = 0; i < 2; i++) results.push(stepResult(model)); // as in a run
    device.arena.resetPeak();
    const microBatches = Array.from({ length: accumulationSteps }, () => makeBatch);
    const options = { policy, learningRate: 0, maxGradNorm: 1, numTargets: N };
    const parts = stepParts(model, optimizer, microBatches, options, results[0]!);
    while (!parts.next().done);
    return device.memory();
  } finally {
    for (const result of results) disposeResult(result);
  }
}
