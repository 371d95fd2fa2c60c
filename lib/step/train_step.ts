// Training steps as an object that keeps what lasts from step to step.

import { type HostBatch, toDevice } from '../models/batch.ts';
import type { Decoder } from '../models/decoder.ts';
import { offloadedBytes } from '../models/offload.ts';
import type { StepPolicy } from '../models/policy.ts';
import { requireSequenceModel, sequencePart, sequenceRanks } from '../models/sequence_part.ts';
import { nextToken } from '../objectives/next_token.ts';
import type { Objective } from '../objectives/objective.ts';
import { requireCount, requireFinite, requireInteger } from '../ops/check.ts';
import type { SequenceRanks } from '../ops/head_exchange.ts';
import { CLIPPINGS, type Clipping, clippingOf, clippingProblem } from '../optim/clip.ts';
import type { Optimizer } from '../optim/optimizer.ts';
import type { ProcessGroup } from '../ranks/process_group.ts';
import { tidy } from '../runtime/scope.ts';
import { requireShards } from './exchange.ts';
import { requireOneMicroBatch, StepInBackward } from './in_backward.ts';
import { disposeScalars, microSteps, requireTrainable, type StepScalars, stepScalars } from './micro_steps.ts';
import { StepPolicies } from './step_policies.ts';

export interface TrainStepOptions {
  /** Clips gradients to this norm, in the way that `clipping` names; 0: no clipping. @default 1 */
  maxGradNorm?: number;
  /** @default 'none' if maxGradNorm is 0, else 'previous' with inBackward and 'global' without */
  clipping?: Clipping | null;
  /**
   * Updates each parameter inside the backward, as soon as its gradient is complete, and then frees the gradient. Without clipping, the
   * results equal those of the ordinary step bit for bit. The host waits for the loss before the backward; if the loss is not finite,
   * nothing changes. Allows only one micro-batch per step. @default false
   */
  inBackward?: boolean;
  /** For clipping 'previous' in a resumed run: what `previousNorm()` returned before. @default null, for the first step */
  previousNorm?: number | null;
  /** @default the fastest policy that fits in the device's memoryLimit, planned again when a batch is larger than those before */
  policy?: StepPolicy | null;
  /** @default nextToken() */
  objective?: Objective;
  /** Seed of dropout. @default 0 */
  seed?: number;
  /**
   * The ranks that compute each step together. Every rank has the same model and optimizer, calls `run` with as many micro-batches of its
   * own for the same step, or a few fewer, and gets the results of all. The step's micro-batches are numbered in turns: the first of
   * each rank, the second of each … @default null
   */
  group?: ProcessGroup | null;
  /**
   * Number of neighbouring ranks of the group that share sequences: `run` gets the same micro-batches on each of them, and each computes
   * its tokens of them. It must divide the group's size and every layer's number of query heads. @default 1
   */
  sequence?: number;
}

export interface StepOptions {
  learningRate: number;
  /** Number of this step, which dropout depends on. @default counted from 1 */
  step?: number;
  /** Stops the step between two micro-batches, before anything is updated. `run` then rejects with the signal's reason. */
  signal?: AbortSignal;
}

/** Results of a step, as promises. Await them after enqueuing the next step, so that the device does not wait for the host. */
export interface StepResult {
  /** Mean loss over the targets of all micro-batches. */
  loss: Promise<number>;
  /**
   * Norm of all gradients before clipping. If it is NaN or infinite, the step has changed nothing. With inBackward this holds only if the
   * loss is not finite either; otherwise parameters have changed, and the model must be restored from a checkpoint.
   */
  gradNorm: Promise<number>;
  /** Number of targets (of items that the objective counts) in all micro-batches. */
  numTargets: number;
  /** (P,): sum of squares of each trainable parameter's gradient. Readable until the step after the next begins. */
  squares(): Promise<Float32Array>;
}

/**
 * Runs training steps of one model: forward and backward of the micro-batches, clipping, update.
 *
 *     using step = new TrainStep(model, optimizer, { maxGradNorm: 1 });
 *     const { loss } = await step.run([{ inputs, targets }], { learningRate: 1e-5 });
 *     console.log(await loss);
 */
export class TrainStep {
  readonly #model: Decoder;
  readonly #optimizer: Optimizer;
  readonly #maxGradNorm: number;
  readonly #objective: Objective;
  readonly #seed: number;
  readonly #policies: StepPolicies;
  readonly #clipping: Clipping;
  readonly #inBackward: boolean;
  readonly #group: ProcessGroup | null;
  /** The ranks that share this one's sequences; null: it has whole ones. */
  readonly #sequence: SequenceRanks | null;
  /** The last finite norm, for clipping 'previous'. */
  #previousNorm: Promise<number | null>;
  /** Two, used in turn, so that the results of one step can be read while the next one runs. */
  readonly #scalars: StepScalars[] = [];
  #numRuns = 0;
  #step = 0;
  #isRunning = false;

  /** @param optimizer must have all of the model's trainable parameters; with shards, the group's */
  constructor(model: Decoder, optimizer: Optimizer, options: TrainStepOptions = {}) {
    const { maxGradNorm = 1, policy = null, objective = nextToken(), seed = 0 } = options;
    const { clipping = null, inBackward = false, previousNorm = null, group = null, sequence = 1 } = options;
    requireFinite('TrainStep', 'maxGradNorm', maxGradNorm, { min: 0 });
    requireInteger('TrainStep', 'seed', seed);
    if (typeof inBackward !== 'boolean')
      throw new TypeError(`TrainStep: inBackward must be true or false, got ${String(inBackward)}`);
    if (clipping !== null && !CLIPPINGS.includes(clipping)) {
      throw new RangeError(`TrainStep: clipping must be ${CLIPPINGS.join(', ')}, got ${String(clipping)}`);
    }
    const choice = { clipping, maxGradNorm, inBackward };
    const problem = clippingProblem(choice, 'inBackward');
    if (problem) throw new RangeError(`TrainStep: clipping ${problem}`);
    this.#clipping = clippingOf(choice);
    this.#inBackward = inBackward;
    if (group && !policy)
      throw new RangeError('TrainStep: group needs a policy, the same on every rank; policy is null');
    requireShards(optimizer, group);
    this.#group = group;
    this.#sequence = checkedSequence(model, group, sequence);
    if (previousNorm !== null) {
      requireFinite('TrainStep', 'previousNorm', previousNorm, { min: 0 });
      if (this.#clipping !== 'previous') {
        throw new RangeError(
          `TrainStep: previousNorm ${previousNorm} is for clipping 'previous', and clipping is '${this.#clipping}'`,
        );
      }
    }
    this.#previousNorm = Promise.resolve(previousNorm);
    this.#model = model;
    this.#optimizer = optimizer;
    this.#maxGradNorm = maxGradNorm;
    this.#objective = objective;
    this.#seed = seed;
    this.#policies = new StepPolicies(model, optimizer, objective, { given: policy, inBackward });
    this.#requireParameters();
    try {
      for (let i = 0; i < 2; i++) this.#scalars.push(stepScalars(model));
    } catch (error) {
      this.dispose();
      throw error;
    }
  }

  /**
   * Runs one step. Resolves when everything is enqueued; the host is at most one micro-batch ahead of the device.
   * @param batches micro-batches. They go to the device one at a time, the largest first: gradients are then placed beside the largest
   *   activations, and those of the other batches fit into the same space
   */
  async run(batches: readonly HostBatch[], { learningRate, step, signal }: StepOptions): Promise<StepResult> {
    if (this.#isRunning) throw new Error('TrainStep: a step is running; await it before the next one');
    if (batches.length === 0) throw new RangeError('TrainStep: batches is empty');
    if (this.#inBackward) requireOneMicroBatch(batches.length);
    requireFinite('TrainStep', 'learningRate', learningRate, { min: 0 });
    const number = step ?? this.#step + 1;
    requireInteger('TrainStep', 'step', number, { min: 0 });
    signal?.throwIfAborted();
    this.#requireParameters();
    this.#isRunning = true;
    try {
      const result = await this.#enqueue(batches, learningRate, number, signal);
      this.#step = number;
      return result;
    } finally {
      this.#isRunning = false;
    }
  }

  async #enqueue(
    batches: readonly HostBatch[],
    learningRate: number,
    step: number,
    signal?: AbortSignal,
  ): Promise<StepResult> {
    const { device } = this.#model;
    const objective = this.#objective;
    const group = this.#group;
    const parts = this.#parts(batches);
    const longestFirst = [...parts.entries()].sort(([, a], [, b]) => b.inputs.length - a.inputs.length);
    const ofRanks = await this.#gather({
      targets: parts.reduce((sum, batch) => sum + objective.count(batch), 0),
      batches: batches.filter(({ standsIn = false }) => !standsIn).length,
    });
    const numTargets = ofRanks.reduce((sum, { targets }) => sum + targets, 0);
    const shared = this.#sequence?.size ?? 1;
    const place = Math.floor((group?.rank ?? 0) / shared); // ranks that share sequences have the same micro-batches
    const counts = ofRanks.filter((_, rank) => rank % shared === 0).map(({ batches }) => batches);
    const policy = this.#policies.of(batches);
    await this.#prepareHost(policy, longestFirst[0]![1]);
    signal?.throwIfAborted();
    const scalars = this.#scalars[this.#numRuns % 2];
    if (!scalars) throw new Error('TrainStep: used after dispose()');
    this.#numRuns += 1;
    const run = this.#numRuns;
    const options = {
      objective,
      policy,
      divisor: Math.max(numTargets, 1),
      learningRate,
      maxGradNorm: this.#maxGradNorm,
      clipping: this.#clipping,
      dropout: { seed: this.#seed, step: step * counts.reduce((sum, count) => sum + count, 0) },
      numbers: longestFirst.map(([i]) => numberInStep(i, place, counts)),
      group,
    };
    const microBatches = longestFirst.map(
      ([, batch]) =>
        () =>
          toDevice(batch, device),
    );
    const stepParts = { model: this.#model, optimizer: this.#optimizer, scalars };
    if (this.#inBackward) {
      const running = () => new StepInBackward(stepParts, microBatches[0]!, options);
      await tidy(() => this.#runInBackward(running(), scalars, signal));
    } else await this.#runMicroSteps(microSteps(stepParts, microBatches, options), signal);
    const [loss, gradNorm] = [scalars.loss.item(), scalars.norm.item()];
    for (const number of [loss, gradNorm]) number.catch(() => {}); // the caller's await rejects
    if (this.#clipping === 'previous') this.#keepNorm(gradNorm);
    const squares = async () => {
      if (this.#numRuns > run + 1) throw new Error('TrainStep: the squares of this step have been overwritten');
      return await scalars.squares.toFloat32();
    };
    return { loss, gradNorm, numTargets, squares };
  }

  /** What this rank has of them. */
  #parts(batches: readonly HostBatch[]): readonly HostBatch[] {
    const sequence = this.#sequence;
    return sequence ? batches.map((batch) => sequencePart(batch, sequence)) : batches;
  }

  /** Host memory for the inputs of the longest micro-batch: allocating it may take a minute, in which ranks and signals are served. */
  #prepareHost(policy: StepPolicy, { inputs }: HostBatch): Promise<void> {
    const { config, dtype, device } = this.#model;
    return device.host.prepare(offloadedBytes(config, policy, { N: inputs.length, dtype }));
  }

  /** Of all ranks, by rank. */
  async #gather<Value>(value: Value): Promise<Value[]> {
    return this.#group ? await this.#group.gather(value) : [value];
  }

  async #runMicroSteps(running: Iterable<void>, signal?: AbortSignal): Promise<void> {
    let before: Promise<void> = Promise.resolve();
    for (const _ of running) {
      const enqueued = this.#model.device.synchronize();
      enqueued.catch(() => {}); // the next await rejects
      await before;
      before = enqueued;
      signal?.throwIfAborted();
    }
    await before;
  }

  /** Waits for the loss and for the norm of the previous step before the first parameter is updated. */
  async #runInBackward(running: StepInBackward, scalars: StepScalars, signal?: AbortSignal): Promise<void> {
    try {
      const loss = await scalars.loss.item();
      const previousNorm = await this.#previousNorm;
      signal?.throwIfAborted();
      if (Number.isFinite(loss)) running.backward(previousNorm);
      else running.skip();
    } finally {
      running.dispose();
    }
  }

  #keepNorm(gradNorm: Promise<number>): void {
    const before = this.#previousNorm;
    this.#previousNorm = gradNorm.then(
      (norm) => (Number.isFinite(norm) ? norm : before),
      () => before, // the step failed; nothing that depends on it continues
    );
  }

  /**
   * For clipping 'previous': the norm for clipping the next step, which is the last finite one; null before the first step, or with another
   * clipping. A checkpoint stores it, so that a resumed run can pass it as the option `previousNorm`.
   */
  previousNorm(): Promise<number | null> {
    return this.#previousNorm;
  }

  /** Throws unless the model may be trained and the optimizer has every trainable parameter, so that no gradient is silently left out. */
  #requireParameters(): void {
    requireTrainable(this.#model);
    const updated = new Set(this.#optimizer.parameters);
    const trained = this.#model.trainableParameters();
    const missing = trained.find((parameter) => !updated.has(parameter));
    if (missing) throw new Error(`TrainStep: the model trains ${missing}, which the optimizer does not have`);
  }

  dispose(): void {
    for (const scalars of this.#scalars.splice(0)) disposeScalars(scalars);
  }
  [Symbol.dispose](): void {
    this.dispose();
  }
}

/** Number of micro-batch i of a rank in its step, where each rank has `counts[rank]` and they take turns. */
function numberInStep(i: number, rank: number, counts: readonly number[]): number {
  return counts.reduce((sum, count, other) => sum + Math.min(count, other < rank ? i + 1 : i), 0);
}

/** The `shared` neighbouring ranks that this one is of; null for 1. */
function checkedSequence(model: Decoder, group: ProcessGroup | null, shared: number): SequenceRanks | null {
  requireCount('TrainStep', 'sequence', shared);
  if (shared === 1) return null;
  const { rank, size } = group ?? { rank: 0, size: 1 };
  if (size % shared !== 0) throw new RangeError(`TrainStep: sequence ${shared} must divide the ${size} ranks of group`);
  requireSequenceModel(model.config, shared);
  return sequenceRanks(rank, shared);
}
