// The steps of a run: enqueued one ahead of what is read, with what is kept and told between them.
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { stringify as toYaml } from 'yaml';
import { saveAdapter } from '../io/adapters.ts';
import { writeChatTemplate } from '../io/model_folder.ts';
import { saveModel } from '../io/save_model.ts';
import type { Decoder, StepPolicy } from '../models/decoder.ts';
import { AdamW } from '../optim/adamw.ts';
import { learningRateAt, type ScheduleOptions, warmupProblem } from '../optim/schedule.ts';
import { planStep } from '../planning/plan.ts';
import type { Tokenizer } from '../text/tokenizer.ts';
import { type Beside, better, type Checkpoints, type RunState } from './checkpoint.ts';
import type { RunConfig } from './config.ts';
import { evaluate, toDevice } from './evaluate.ts';
import { NonFiniteError, type TrainOptions, type TrainResult } from './events.ts';
import type { EvaluationMetrics, StepMetrics } from './metrics.ts';
import { batchesOfStep, type RunData } from './run_data.ts';
import { type Sample, writeSamples } from './samples.ts';
import { disposeResult, type StepResult, stepResult, trainStep } from './step.ts';
import { StepFile } from './step_file.ts';

export interface RunParts {
  model: Decoder;
  tokenizer: Tokenizer;
  data: RunData;
  checkpoints: Checkpoints;
  state: RunState | null;
}

/** A step that has been enqueued, and whose numbers are read while the next one runs. */
interface PendingStep {
  step: number;
  /** Loss and norm. */
  values: Promise<[number, number]>;
  result: StepResult;
  learningRate: number;
  numTargets: number;
  peakBytes: number;
}

/** One run, from its first or next step to its last. */
export class Run {
  readonly #config: RunConfig;
  readonly #options: TrainOptions;
  readonly #parts: RunParts;
  readonly #policy: StepPolicy;
  readonly #numSteps: number;
  readonly #schedule: ScheduleOptions;
  readonly #beside: Beside;
  #best: RunState['best'];
  #metrics!: StepMetrics[];
  #file!: StepFile<StepMetrics | EvaluationMetrics>;
  #started = 0;
  #lastDone = 0;

  constructor(config: RunConfig, options: TrainOptions, parts: RunParts) {
    this.#config = config;
    this.#options = options;
    this.#parts = parts;
    const { model, data, state, tokenizer } = parts;
    this.#policy = state?.policy ?? choosePolicy(config, model, data.training.isPacked);
    this.#best = state?.best ?? null;
    this.#beside = {
      tokenizerFrom: tokenizer.path ? dirname(tokenizer.path) : null,
      chatTemplate: (config.data.chatTemplate && tokenizer.chatTemplate?.source) || null,
    };
    const stepsPerEpoch = Math.ceil(data.training.length / (config.batchSize * config.accumulationSteps));
    const ofEpochs = Math.ceil((config.epochs ?? (config.maxSteps ? Infinity : 1)) * stepsPerEpoch);
    this.#numSteps = Math.min(config.maxSteps ?? Infinity, ofEpochs);
    const { learningRate } = config.optimizer;
    this.#schedule = { ...config.schedule, learningRate, numSteps: this.#numSteps };
  }

  async run(): Promise<TrainResult> {
    const { outDir, optimizer: settings, seed, masterWeights } = this.#config;
    const { model, data, state, checkpoints } = this.#parts;
    using optimizer = new AdamW(model.trainableParameters(), {
      ...settings,
      seed,
      masterWeights,
      readStored: false,
    });
    const stepsDone = state?.step ?? 0;
    if (state) await checkpoints.restore(model, optimizer, stepsDone);
    else await optimizer.readStored();
    await mkdir(outDir, { recursive: true });
    await writeFile(join(outDir, 'config.yaml'), toYaml(this.#config));
    this.#file = await StepFile.open(join(outDir, 'metrics.jsonl'), stepsDone);
    this.#metrics = this.#file.earlier.filter((line): line is StepMetrics => 'loss' in line);
    const { training, numTokens } = data;
    this.#options.onStart?.({
      model,
      policy: this.#policy,
      numSteps: this.#numSteps,
      stepsDone,
      numTokens,
      numSequences: training.length,
      isPacked: training.isPacked,
    });
    const problem = warmupProblem(this.#schedule);
    if (problem) this.#options.onWarning?.({ code: 'warm-up', message: problem });
    this.#started = performance.now() - (this.#metrics.at(-1)?.seconds ?? 0) * 1000;
    this.#lastDone = performance.now();
    const results = [stepResult(model), stepResult(model)];
    try {
      await this.#steps(stepsDone, optimizer, results);
    } finally {
      await this.#file.close();
      for (const result of results) disposeResult(result);
    }
    if (model.lora) await saveAdapter(model, outDir);
    else await saveModel(model, outDir, { tokenizerFrom: this.#beside.tokenizerFrom });
    if (this.#beside.chatTemplate !== null) await writeChatTemplate(outDir, this.#beside.chatTemplate);
    return {
      metrics: this.#metrics,
      finished: this.#metrics.length === this.#numSteps,
      outDir,
      policy: this.#policy,
      peakBytes: this.#metrics.reduce((peak, { peakBytes }) => Math.max(peak, peakBytes), 0),
    };
  }

  async #steps(stepsDone: number, optimizer: AdamW, results: readonly StepResult[]): Promise<void> {
    const { checkpoint } = this.#config;
    const { signal } = this.#options;
    const { state } = this.#parts;
    let pending: PendingStep | null = null;
    let saved = stepsDone;
    let told = state && !state.isTold && !(await this.#tell(stepsDone)).isTold ? stepsDone - 1 : stepsDone;
    for (let step = stepsDone + 1; step <= this.#numSteps && !signal?.aborted; step++) {
      const enqueued = await this.#enqueue(step, optimizer, results[step % 2]!);
      if (pending) await this.#log(pending);
      pending = enqueued;
      const saves = this.#isDue(step, checkpoint.everySteps);
      if (!pending || !(saves || this.#tells(step))) continue;
      await this.#log(pending);
      pending = null;
      const { isTold, isBest } = await this.#tell(step);
      if (!isTold) break;
      told = step;
      if (saves || (isBest && checkpoint.keepBest)) {
        await this.#save(optimizer, step, true);
        saved = step;
      }
      this.#lastDone = performance.now();
    }
    if (pending) await this.#log(pending);
    const done = this.#metrics.length;
    const isTold = told === done || !this.#tells(done);
    if (done > saved && (done < this.#numSteps || !isTold)) await this.#save(optimizer, done, isTold);
  }

  #isDue(step: number, every?: number): boolean {
    return every !== undefined && (step % every === 0 || step === this.#numSteps);
  }

  /** Whether validation or samples follow a step. */
  #tells(step: number): boolean {
    const { evaluation, samples } = this.#config;
    return this.#isDue(step, evaluation.everySteps) || this.#isDue(step, samples.everySteps);
  }

  /** Validates and writes samples where a step is due for it. isTold: `signal` has not come between. */
  async #tell(step: number): Promise<{ isTold: boolean; isBest: boolean }> {
    const { evaluation, samples } = this.#config;
    const { signal } = this.#options;
    if (!this.#tells(step)) return { isTold: true, isBest: false };
    if (signal?.aborted) return { isTold: false, isBest: false };
    const evaluates = this.#isDue(step, evaluation.everySteps);
    const isBest = evaluates ? await this.#evaluate(step) : false;
    if (isBest === null) return { isTold: false, isBest: false };
    if (this.#isDue(step, samples.everySteps)) await this.#sample(step);
    return { isTold: true, isBest };
  }

  /** null where `signal` stopped it before the update. */
  async #enqueue(step: number, optimizer: AdamW, result: StepResult): Promise<PendingStep | null> {
    const { maxGradNorm } = this.#config;
    const { model, data } = this.#parts;
    const batches = await batchesOfStep(data.training, step - 1, this.#config);
    const numTargets = batches.reduce((sum, batch) => sum + batch.numTargets, 0);
    const learningRate = learningRateAt(step - 1, this.#schedule);
    model.device.arena.resetPeak();
    const microBatches = batches.map((batch) => () => toDevice(batch, model.device));
    const { seed } = this.#config;
    const options = { policy: this.#policy, learningRate, maxGradNorm, numTargets, step, seed };
    const isDone = await trainStep(model, optimizer, microBatches, options, result, this.#options.signal);
    if (!isDone) return null;
    // Enqueued now, read when the next step has been enqueued too: the device never waits for the host.
    const values = Promise.all([result.loss.item(), result.norm.item()]);
    values.catch(() => {}); // told by #log
    return { step, values, result, learningRate, numTargets, peakBytes: model.device.memory().reservedBytes };
  }

  async #log({ step, values, result, learningRate, numTargets, peakBytes }: PendingStep): Promise<void> {
    const [loss, gradNorm] = await values;
    if (!Number.isFinite(loss) || !Number.isFinite(gradNorm)) {
      const problem = await describeNonFinite(step, result, loss, this.#parts.model);
      if (this.#config.nonFinite === 'stop') throw new NonFiniteError(problem);
      this.#options.onSkip?.(problem);
    }
    const now = performance.now();
    const line: StepMetrics = {
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
    this.#metrics.push(line);
    await this.#file.append(line);
    this.#options.onStep?.(line, this.#numSteps);
  }

  /** Whether this is the best so far; null where `signal` came between. */
  async #evaluate(step: number): Promise<boolean | null> {
    const { model, data } = this.#parts;
    const { signal, onEvaluation } = this.#options;
    if (!data.validation) throw new Error('evaluation.everySteps: needs data.validation');
    const options = { policy: this.#policy, batchSize: this.#config.batchSize, signal };
    const evaluation = await evaluate(model, data.validation, options);
    if (!evaluation) return null;
    await this.#file.append({ step, ...evaluation });
    onEvaluation?.({ step, ...evaluation });
    this.#best = better(this.#best, step, evaluation);
    return this.#best!.step === step;
  }

  async #sample(step: number): Promise<void> {
    const { outDir, samples, seed } = this.#config;
    const { model, tokenizer } = this.#parts;
    const { onSample } = this.#options;
    const file = await StepFile.open<Sample>(join(outDir, 'samples.jsonl'), step - 1);
    try {
      for (const sample of await writeSamples(model, tokenizer, samples, { step, seed })) {
        await file.append(sample);
        onSample?.(sample);
      }
    } finally {
      await file.close();
    }
  }

  async #save(optimizer: AdamW, step: number, isTold: boolean): Promise<void> {
    const { model, checkpoints } = this.#parts;
    const { target } = model.device;
    const state = { step, isTold, policy: this.#policy, target, best: this.#best, config: this.#config };
    await checkpoints.save(model, optimizer, state, this.#beside);
  }
}

/** What the configuration fixes, and for the rest the fastest that fits the device. */
function choosePolicy(config: RunConfig, model: Decoder, isPacked: boolean): StepPolicy {
  const { chunkSizes, mlpSave, recompute } = config;
  const fixed: Partial<StepPolicy> = {};
  if (chunkSizes.mlp !== 'auto') fixed.mlpChunkSize = chunkSizes.mlp;
  if (chunkSizes.loss !== 'auto') fixed.lossChunkSize = chunkSizes.loss;
  if (mlpSave !== 'auto') fixed.mlpSave = mlpSave;
  if (recompute !== 'auto') fixed.recompute = recompute;
  const { device, dtype, gradientDtype } = model;
  return planStep(model.config, {
    B: config.batchSize,
    T: config.sequenceLength,
    dtype,
    gradientDtype,
    accumulationSteps: config.accumulationSteps,
    isPacked,
    lora: model.lora?.layout,
    masterWeights: config.masterWeights,
    like: device.target,
    memoryLimit: device.memoryLimit,
    fixed,
  }).policy;
}

/** Names the step and the first tensor whose gradient is not finite. */
async function describeNonFinite(step: number, result: StepResult, loss: number, model: Decoder): Promise<string> {
  if (!Number.isFinite(loss)) return `step ${step}: the loss is ${loss}; no parameter was changed by it`;
  const squares = await result.squares.toFloat32();
  const index = squares.findIndex((value) => !Number.isFinite(value));
  const name = model.trainableParameters()[index]?.name ?? 'all parameters together';
  return `step ${step}: the gradient of ${name} is not finite; no parameter was changed by it`;
}
