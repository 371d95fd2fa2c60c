// The steps of a run: each is enqueued before the results of the one before are read; between them results are written and reported.
import type { StepPolicy } from '../models/policy.ts';
import { AdamW } from '../optim/adamw.ts';
import { firstNonFinite } from '../optim/finite.ts';
import { learningRateAt, type ScheduleOptions, warmupProblem } from '../optim/schedule.ts';
import { HalfStepError } from '../step/in_backward.ts';
import { type StepResult, TrainStep } from '../step/train_step.ts';
import { AfterSteps, isDue } from './after_steps.ts';
import type { RunConfig } from './config.ts';
import { NonFiniteError, type TrainResult } from './events.ts';
import type { StepMetrics } from './metrics.ts';
import { MetricsFile } from './metrics_file.ts';
import { NonFiniteSteps, requireFiniteParameters } from './non_finite.ts';
import { RunFiles } from './run_files.ts';
import type { RunParts } from './run_parts.ts';
import { RunReport } from './run_report.ts';
import { cutSamples } from './samples.ts';
import { modelIn } from './start_checks.ts';
import { StepBatches } from './step_batches.ts';

/** A step that has been enqueued, and whose numbers are read while the next one runs. */
interface PendingStep {
  step: number;
  result: StepResult;
  learningRate: number;
  peakBytes: number;
}

/** One run, from its first or next step to its last. */
export class Run {
  readonly #config: RunConfig;
  readonly #parts: RunParts;
  readonly #policy: StepPolicy;
  readonly #numSteps: number;
  readonly #schedule: ScheduleOptions;
  readonly #batches: StepBatches;
  readonly #nonFinite: NonFiniteSteps;
  readonly #after: AfterSteps;
  readonly #report: RunReport;
  /** Of rank 0. */
  #metrics: MetricsFile | null = null;
  #files!: RunFiles;
  #trainStep!: TrainStep;
  /** Steps whose update has been enqueued, and whose results have been reported. */
  #enqueued: number;
  #done: number;
  /** Steps under way, in the order in which they were enqueued. */
  readonly #pending: PendingStep[] = [];
  /** The last step whose parameters are known to be finite, or were given. */
  #checked: number;
  /** Whether the parameters that the run begins with are; if not, they are not looked at later. */
  #isGivenFinite = true;
  #started = 0;
  #lastDone = 0;

  constructor(config: RunConfig, parts: RunParts) {
    this.#config = config;
    this.#parts = parts;
    const { plan, data, state, events, signal, ranks } = parts;
    const { policy } = plan;
    this.#policy = policy;
    this.#batches = new StepBatches(data.training, { ...config, ...ranks.part(config) });
    const ofEpochs = Math.ceil((config.epochs ?? (config.maxSteps ? Infinity : 1)) * this.#batches.stepsPerEpoch);
    const numSteps = Math.min(config.maxSteps ?? Infinity, ofEpochs);
    this.#numSteps = numSteps;
    this.#nonFinite = new NonFiniteSteps(config, (message) => events.emit({ type: 'skip', message }));
    this.#after = new AfterSteps(config, parts, { policy, numSteps, events, signal });
    const { learningRate } = config.optimizer;
    this.#schedule = { ...config.schedule, learningRate, numSteps };
    const step = state?.step ?? 0;
    this.#enqueued = step;
    this.#done = step;
    this.#checked = step;
    this.#report = new RunReport(config, parts, { policy, numSteps, stepsDone: step });
  }

  async run(): Promise<TrainResult> {
    const { outDir, optimizer: settings, seed, masterWeights, maxGradNorm, clipping } = this.#config;
    const { inBackward, ...ofAdamW } = settings;
    const { model, state, events, group, ranks } = this.#parts;
    const problem = warmupProblem(this.#schedule);
    if (problem) events.warn({ code: 'warm-up', message: problem });
    const options = { ...ofAdamW, seed, masterWeights, readStored: false, shards: ranks.shards(this.#config) };
    using optimizer = new AdamW(model.trainableParameters(), options);
    this.#files = new RunFiles(this.#config, this.#parts, optimizer);
    await this.#files.restore();
    this.#isGivenFinite = (await firstNonFinite(model.trainableParameters())) === null;
    if (this.#isFirst) await this.#openFiles();
    this.#started = performance.now() - (state?.seconds ?? 0) * 1000;
    this.#lastDone = performance.now();
    const previousNorm = state?.previousNorm ?? null;
    const { sequence } = this.#config.parallel;
    const ofStep = { policy: this.#policy, maxGradNorm, clipping, inBackward, previousNorm, seed, group, sequence };
    using trainStep = new TrainStep(model, optimizer, ofStep);
    this.#trainStep = trainStep;
    let failure: unknown = null;
    try {
      if (this.#isFirst) await this.#report.begin();
      await this.#emitStart();
      await this.#steps();
      // A run that was stopped before its first step must not overwrite an earlier one's model.
      const saves = this.#isFirst && (this.#done > 0 || (await modelIn(outDir)) === null);
      if (await this.#asFirst(saves)) await this.#files.saveModel();
      await this.#metrics?.sync();
    } catch (error) {
      failure = error;
      await this.#rescue(error);
      throw error;
    } finally {
      await this.#report.end(failure === null && this.#isFinished, failure);
      await this.#metrics?.close();
    }
    const metrics = this.#metrics?.steps ?? [];
    const peakBytes = metrics.reduce((peak, { peakBytes }) => Math.max(peak, peakBytes), 0);
    return { metrics, finished: this.#isFinished, outDir, policy: this.#policy, peakBytes };
  }

  /** Whether this rank writes the run's files. */
  get #isFirst(): boolean {
    return this.#parts.ranks.isFirst;
  }

  async #openFiles(): Promise<void> {
    const { outDir } = this.#config;
    const { state, events } = this.#parts;
    await this.#files.requireSpace(this.#numSteps - this.#done);
    await this.#files.writeConfig();
    const metrics = await MetricsFile.open(outDir, state);
    this.#metrics = metrics;
    await cutSamples(outDir, this.#after.done);
    events.keepBy(async (event) => {
      await metrics.keep(event);
      await this.#report.keep(event);
    });
  }

  get #isFinished(): boolean {
    return this.#done >= this.#numSteps && (!this.#isFirst || this.#after.isDone(this.#done));
  }

  async #emitStart(): Promise<void> {
    const { model, plan, data, events, ranks } = this.#parts;
    const { training, numTokens } = data;
    const start = {
      model,
      policy: plan.policy,
      plan,
      numSteps: this.#numSteps,
      stepsDone: this.#done,
      numTokens,
      numSequences: training.length,
      longestSequence: training.T,
      isPacked: training.isPacked,
      shards: ranks.shards(this.#config),
    };
    await events.emit({ type: 'start', start });
  }

  async #steps(): Promise<void> {
    const { checkpoint } = this.#config;
    if (this.#after.done < this.#done) {
      if (this.#isFirst) await this.#after.run(this.#done);
      else await this.#after.help(this.#done);
    }
    for (let step = this.#done + 1; step <= this.#numSteps && (await this.#goesOn()); step++) {
      if (!(await this.#enqueue(step))) break;
      await this.#logPending(1);
      const saves = isDue(step, this.#numSteps, checkpoint.everySteps);
      if (!this.#isFirst) await this.#after.help(step);
      if (!(this.#isFirst || this.#isSharded) || (!saves && !this.#after.isDue(step))) continue;
      await this.#logPending();
      const follows = this.#isFirst && (await this.#follow(step));
      if (await this.#asFirst(follows === 'best' ? checkpoint.keepBest || saves : follows && saves))
        await this.#save(step);
      this.#lastDone = performance.now();
    }
    await this.#logPending();
    await this.#requireFinite();
    const isLeft = this.#isFirst && this.#done > this.#files.saved && !this.#isFinished;
    if (await this.#asFirst(isLeft)) await this.#save(this.#done);
  }

  /** What is done after a step beside its checkpoint. False: the signal has come, and every rank must learn of it. */
  async #follow(step: number): Promise<boolean | 'best'> {
    await this.#requireFinite();
    const { isDone, isBest } = await this.#after.run(step);
    return isDone && (isBest ? 'best' : true);
  }

  /** Whether ranks share the optimizer's states, so that a checkpoint needs all of them. */
  get #isSharded(): boolean {
    return this.#parts.ranks.shards(this.#config) !== null;
  }

  /** What rank 0 says, for every rank that must take part. */
  async #asFirst(value: boolean): Promise<boolean> {
    return this.#isSharded ? (await this.#parts.ranks.gather(value))[0]! : value;
  }

  /** False on every rank where the signal has come to one. */
  async #goesOn(): Promise<boolean> {
    const { ranks, signal } = this.#parts;
    return !(await ranks.any(signal?.aborted ?? false));
  }

  /** False where `signal` stopped it before the update. */
  async #enqueue(step: number): Promise<boolean> {
    const { model, ranks, group } = this.#parts;
    const signal = group ? undefined : this.#parts.signal; // a rank that stopped inside a step would leave the others waiting
    ranks.store?.begin(step);
    const batches = await this.#batches.of(step - 1);
    const learningRate = learningRateAt(step - 1, this.#schedule);
    model.device.arena.resetPeak();
    try {
      const result = await this.#trainStep.run(batches, { learningRate, step, signal });
      this.#enqueued = step;
      this.#pending.push({ step, result, learningRate, peakBytes: model.device.memory().reservedBytes });
      return true;
    } catch (error) {
      if (signal?.aborted && error === signal.reason) return false;
      throw error;
    }
  }

  /** Waits for the steps under way, except the last `numLeft`, and reports each. */
  async #logPending(numLeft = 0): Promise<void> {
    while (this.#pending.length > numLeft) await this.#log(this.#pending.shift()!);
  }

  async #log({ step, result, learningRate, peakBytes }: PendingStep): Promise<void> {
    const { numTargets } = result;
    const [loss, gradNorm] = await Promise.all([result.loss, result.gradNorm]);
    await this.#nonFinite.check(step, loss, gradNorm, result, this.#parts.model);
    const now = performance.now();
    const metrics: StepMetrics = {
      step,
      loss,
      gradNorm,
      learningRate,
      tokens: numTargets,
      tokensPerSecond: numTargets / ((now - this.#lastDone) / 1000),
      peakBytes,
      seconds: (now - this.#started) / 1000,
    };
    this.#lastDone = now;
    this.#done = step;
    await this.#parts.events.emit({ type: 'step', metrics, numSteps: this.#numSteps });
    this.#nonFinite.endWhereLost();
  }

  /** Parameters that a step has made NaN or infinite are not validated, sampled from or saved. No step may be under way. */
  async #requireFinite(): Promise<void> {
    if (this.#checked === this.#done || !this.#isGivenFinite) return;
    await requireFiniteParameters(this.#done, this.#parts.model, this.#files.saved);
    this.#checked = this.#done;
  }

  async #save(step: number): Promise<void> {
    if (!this.#isFirst) return await this.#files.saveCheckpointPart(step);
    await this.#requireFinite();
    const { unwritten } = this.#metrics!;
    if (unwritten.length === 0) await this.#metrics!.sync();
    await this.#files.saveCheckpoint({
      step,
      isTold: this.#after.isDone(step),
      seconds: (performance.now() - this.#started) / 1000,
      policy: this.#policy,
      best: this.#after.best,
      previousNorm: await this.#trainStep.previousNorm(),
      unwritten,
    });
    await this.#report.update();
  }

  /**
   * If a file could not be read or written, the model in memory is sound: tries to save a checkpoint. After any other error it may not be;
   * the last checkpoint is what remains. The same holds for a step that is half done, and where other ranks have a part of the states.
   */
  async #rescue(error: unknown): Promise<void> {
    if (!this.#isFirst || this.#isSharded || error instanceof HalfStepError) return;
    if (error instanceof NonFiniteError && error.isHalfDone) return;
    const isSkipped = error instanceof NonFiniteError && this.#config.nonFinite === 'skip';
    if (!isSkipped && !/^E[A-Z0-9]+$/.test(String((error as NodeJS.ErrnoException | null)?.code))) return;
    try {
      while (this.#pending.length > 0) {
        const { step } = this.#pending[0]!;
        await this.#logPending(this.#pending.length - 1).catch(() => {}); // a line that fails is kept in the checkpoint
        if (this.#done < step) return; // the effect of the step is unknown
      }
      if (this.#done <= this.#files.saved || this.#done < this.#enqueued) return;
      await this.#save(this.#done);
      const message = `a checkpoint of step ${this.#done} was saved before the run ends with an error; --resume goes on from it`;
      this.#parts.events.warn({ code: 'saved', message });
    } catch {
      // the run ends with the first error
    }
  }
}
