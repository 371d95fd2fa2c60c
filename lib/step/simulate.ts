// Finds the memory of a training step by running the real code on `meta`.

import type { Parameter } from '../autograd/parameter.ts';
import type { LoraLayout } from '../models/adapter.ts';
import type { Batch } from '../models/batch.ts';
import { Decoder } from '../models/decoder.ts';
import type { DecoderConfig } from '../models/decoder_config.ts';
import { addLora, type LoraOptions } from '../models/lora.ts';
import type { StepPolicy } from '../models/policy.ts';
import { tokensOfRank } from '../models/sequence_part.ts';
import { nextToken } from '../objectives/next_token.ts';
import type { Objective } from '../objectives/objective.ts';
import { AdamW } from '../optim/adamw.ts';
import type { StateBits } from '../optim/adamw_state.ts';
import type { Optimizer } from '../optim/optimizer.ts';
import type { Shards } from '../ranks/shards.ts';
import { type Device, type DeviceOptions, type DeviceTarget, openDevice } from '../runtime/device.ts';
import type { Dtype, GradientDtype } from '../runtime/dtype.ts';
import { OutOfMemoryError } from '../runtime/memory/errors.ts';
import type { MemoryStatistics, TimelineEvent } from '../runtime/memory/statistics.ts';
import { tidy } from '../runtime/scope.ts';
import { empty } from '../runtime/tensor.ts';
import { HalfStepError, requireOneMicroBatch, StepInBackward } from './in_backward.ts';
import { disposeScalars, microSteps, requireTrainable, type StepScalars, stepScalars } from './micro_steps.ts';

/** Options that a step's memory depends on, besides the model's config and the policy. */
export interface StepShape {
  B: number;
  T: number;
  /** @default 'float32' */
  dtype?: Dtype;
  /** Dtype of gradients. 'bfloat16' needs bf16 parameters and one micro-batch. @default 'float32' */
  gradientDtype?: GradientDtype;
  /** Whether batches have documentStart. @default false */
  isPacked?: boolean;
  /** Adapters instead of full training. */
  lora?: LoraOptions | LoraLayout | null;
  /** Whether bf16 parameters have an f32 master copy. @default true */
  masterWeights?: boolean;
  /** Bits of each element of AdamW's m and v. @default 32 */
  stateBits?: StateBits;
  /** This rank's part of each parameter, where the states of AdamW are shared between ranks. @default null: the whole */
  shards?: Shards | null;
  /** Another optimizer. @default AdamW with `masterWeights`, `stateBits` and `shards` */
  makeOptimizer?: (parameters: readonly Parameter[]) => Optimizer;
  /** Whether each parameter is updated, and its gradient freed, inside the backward; with one micro-batch alone. @default false */
  inBackward?: boolean;
  /** Micro-batches of a step. @default 1 */
  accumulationSteps?: number;
  /** Ranks that share each sequence; the step is one rank's. It must divide every layer's number of query heads. @default 1 */
  sequence?: number;
  /** @default nextToken() */
  objective?: Objective;
  /** The hardware to imitate. @default the CPU of this machine */
  like?: DeviceTarget;
}

/** A step to simulate. */
export interface SimulatedStep extends StepShape {
  config: DecoderConfig;
  policy: StepPolicy;
  /** If given, a step that needs more throws OutOfMemoryError. */
  memoryLimit?: DeviceOptions['memoryLimit'];
  /** Gets each allocation and release, from the first parameter to the end of the step. */
  timeline?: TimelineEvent[];
  /** The same for host memory. @default Infinity */
  hostMemoryLimit?: number;
}

/** Memory of one whole step: weights, gradients, optimizer state, activations and workspaces. The peak is exact to the byte. */
export function simulateStep(step: SimulatedStep): MemoryStatistics {
  const { config, B, T, policy, accumulationSteps = 1, lora, like, timeline } = step;
  const { memoryLimit, hostMemoryLimit = Infinity } = step;
  const {
    dtype = 'float32',
    gradientDtype,
    masterWeights,
    stateBits,
    shards,
    objective = nextToken(),
    inBackward = false,
  } = step;
  const { makeOptimizer = (parameters) => new AdamW(parameters, { masterWeights, stateBits, shards }) } = step;
  if (inBackward) requireOneMicroBatch(accumulationSteps);
  using device = openDevice('meta', { like, memoryLimit, hostMemoryLimit });
  if (timeline) device.arena.startTimeline(timeline);
  using model = new Decoder(config, { device, dtype, gradientDtype });
  if (lora) addLora(model, lora);
  requireTrainable(model);
  const optimizer = makeOptimizer(model.trainableParameters());
  const results: StepScalars[] = [];
  try {
    for (let i = 0; i < 2; i++) results.push(stepScalars(model)); // as in TrainStep
    const makeBatch = () => batchOf(step, device);
    const microBatches = Array.from({ length: accumulationSteps }, () => makeBatch);
    device.arena.resetPeak();
    const options = {
      objective,
      policy,
      learningRate: 0,
      maxGradNorm: 1,
      divisor: B * T,
      dropout: { seed: 0, step: 0 },
    };
    const parts = { model, optimizer, scalars: results[0]! };
    if (inBackward) {
      tidy(() => new StepInBackward(parts, makeBatch, options).backward(null));
    } else for (const _ of microSteps(parts, microBatches, options));
    device.arena.stopTimeline();
    return device.memory();
  } catch (error) {
    throw error instanceof HalfStepError ? error.cause : error; // nothing is lost here
  } finally {
    for (const result of results) disposeScalars(result);
    optimizer.dispose();
  }
}

/** Memory of a micro-batch, in the order in which toDevice() allocates it. */
function batchOf({ B, T, isPacked, sequence: size = 1 }: SimulatedStep, device: Device): Batch {
  const t = tokensOfRank(T, size);
  const ids = (length = t) => empty([B * length], { dtype: 'int32', device });
  const tokens = { inputs: ids(), targets: ids(), T: t, length: T };
  if (size === 1) return { ...tokens, documentStart: isPacked ? ids() : null };
  const documentStart = ids();
  const ranks = { first: 0, size, rank: 0 };
  const whole = t * size;
  return {
    ...tokens,
    documentStart,
    sequence: { ranks, T: whole, givenT: T, documentStart: isPacked ? ids(whole) : null },
  };
}

/** Whether a step fits into its memoryLimit. */
export function stepFits(step: SimulatedStep): boolean {
  try {
    simulateStep(step);
    return true;
  } catch (error) {
    if (error instanceof OutOfMemoryError) return false;
    throw error;
  }
}
