// The steps of a run: enqueued one ahead of what is read, with what is kept and told between them.
import { dirname, join } from 'node:path';
import { stringify as toYaml } from 'yaml';
import { saveAdapter } from '../io/adapters.ts';
import { CHAT_TEMPLATE_FILE, removeUncarried, writeChatTemplate } from '../io/model_folder.ts';
import { saveModel } from '../io/save_model.ts';
import { writeWhole } from '../io/whole_file.ts';
import type { Decoder } from '../models/decoder.ts';
import type { StepPolicy } from '../models/policy.ts';
import { AdamW } from '../optim/adamw.ts';
import { learningRateAt, type ScheduleOptions, warmupProblem } from '../optim/schedule.ts';
import { type StepResult, TrainStep } from '../step/train_step.ts';
import type { Tokenizer } from '../text/tokenizer.ts';
import { type Beside, better, type Checkpoints } from './checkpoint.ts';
import type { RunConfig } from './config.ts';
import { evaluate } from './evaluate.ts';
import { NonFiniteError, type TrainOptions, type TrainResult } from './events.ts';
import type { EvaluationMetrics, StepMetrics } from './metrics.ts';
import { NonFiniteSteps } from './non_finite.ts';
import { choosePolicy } from './policy.ts';
import type { RunData } from './run_data.ts';
import type { Machine, RunSources, RunState } from './run_state.ts';
import { cutSamples, openSamples, writeSamples } from './samples.ts';
import { modelIn, requireSpace } from './start_checks.ts';
import { StepBatches } from './step_batches.ts';
import { StepFile } from './step_file.ts';

export interface RunParts {
  model: Decoder;
  tokenizer: Tokenizer;
  data: RunData;
  checkpoints: Checkpoints;
  /** Where it goes on; null: it begins. */
  state: RunState | null;
  /** That of the run which it continues; null: it is chosen. */
  policy: StepPolicy | null;
  machine: Machine;
  sources: RunSources;
}

type Line = StepMetrics | EvaluationMetrics;

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
  readonly #options: TrainOptions;
  readonly #parts: RunParts;
  readonly #policy: StepPolicy;
  readonly #numSteps: number;
  readonly #schedule: ScheduleOptions;
  readonly #beside: Beside;
  readonly #batches: StepBatches;
  readonly #nonFinite: NonFiniteSteps;
  #best: RunState['best'];
  #metrics!: StepMetrics[];
  #file!: StepFile<Line>;
  /** Lines that the file could not take. */
  #unwritten: Line[] = [];
  /** Steps whose update has been enqueued, whose numbers have been told, and that the last checkpoint has. */
  #enqueued: number;
  #done: number;
  #saved: number;
  /** The last step whose validation and samples are done, if any were due. */
  #told: number;
  /** Steps under way, the one that has been enqueued first before the others. */
  readonly #pending: PendingStep[] = [];
  #started = 0;
  #lastDone = 0;

  constructor(config: RunConfig, options: TrainOptions, parts: RunParts) {
    this.#config = config;
    this.#options = options;
    this.#parts = parts;
    const { model, data, state, policy, tokenizer } = parts;
    this.#policy = policy ?? choosePolicy(config, model, data);
    this.#best = state?.best ?? null;
    this.#beside = {
      tokenizerFrom: tokenizer.path ? dirname(tokenizer.path) : null,
      chatTemplate: hasOwnTemplate(config) ? (tokenizer.chatTemplate?.saved() ?? null) : null,
    };
    this.#batches = new StepBatches(data.training, config);
    this.#nonFinite = new NonFiniteSteps(config.nonFinite, options.onSkip);
    const ofEpochs = Math.ceil((config.epochs ?? (config.maxSteps ? Infinity : 1)) * this.#batches.stepsPerEpoch);
    this.#numSteps = Math.min(config.maxSteps ?? Infinity, ofEpochs);
    const { learningRate } = config.optimizer;
    this.#schedule = { ...config.schedule, learningRate, numSteps: this.#numSteps };
    const step = state?.step ?? 0;
    this.#enqueued = step;
    this.#done = step;
    this.#saved = step;
    this.#told = state && !state.isTold ? step - 1 : step;
  }

  async run(): Promise<TrainResult> {
    const { outDir, optimizer: settings, seed, masterWeights, maxGradNorm } = this.#config;
    const { model, state, checkpoints } = this.#parts;
    const problem = warmupProblem(this.#schedule);
    if (problem) this.#options.onWarning?.({ code: 'warm-up', message: problem });
    using optimizer = new AdamW(model.trainableParameters(), {
      ...settings,
      seed,
      masterWeights,
      readStored: false,
    });
    if (state) {
      await checkpoints.restore(model, optimizer, state.step);
      await checkpoints.removeOld(state.best?.step); // a kill may have come before
    } else await optimizer.readStored();
    await this.#requireSpace(optimizer);
    await writeWhole(join(outDir, 'config.yaml'), (handle) => handle.writeFile(toYaml(this.#config)));
    await this.#openMetrics();
    using trainStep = new TrainStep(model, optimizer, { policy: this.#policy, maxGradNorm, seed });
    try {
      this.#tellStart();
      await this.#steps(optimizer, trainStep);
      // Stopped before its first step, a run has nothing that may stand in the place of an earlier one's model.
      if (this.#done > 0 || (await modelIn(outDir)) === null) await this.#saveModel();
      await this.#file.sync();
    } catch (error) {
      await this.#rescue(optimizer, error);
      throw error;
    } finally {
      await this.#file.close();
    }
    return {
      metrics: this.#metrics,
      finished: this.#done >= this.#numSteps && this.#isTold(this.#done),
      outDir,
      policy: this.#policy,
      peakBytes: this.#metrics.reduce((peak, { peakBytes }) => Math.max(peak, peakBytes), 0),
    };
  }

  async #saveModel(): Promise<void> {
    const { outDir } = this.#config;
    const { model } = this.#parts;
    const { tokenizerFrom, chatTemplate } = this.#beside;
    const isUsedAgain = (await modelIn(outDir)) !== null;
    if (model.lora) await saveAdapter(model, outDir);
    else await saveModel(model, outDir, { tokenizerFrom });
    if (chatTemplate !== null) await writeChatTemplate(outDir, chatTemplate);
    const written = chatTemplate === null ? [] : [CHAT_TEMPLATE_FILE];
    if (isUsedAgain) await removeUncarried(model.lora ? null : tokenizerFrom, outDir, written);
  }

  async #requireSpace(optimizer: AdamW): Promise<void> {
    const { model, checkpoints } = this.#parts;
    const { everySteps } = this.#config.checkpoint;
    const present = (await checkpoints.steps()).length;
    const more = everySteps === undefined ? 0 : Math.ceil((this.#numSteps - this.#done) / everySteps);
    await requireSpace(this.#config, model, optimizer.state(), { present, more });
  }

  async #openMetrics(): Promise<void> {
    const path = join(this.#config.outDir, 'metrics.jsonl');
    const keyOf = (line: Line) => `${line.step} ${'loss' in line}`;
    const { state } = this.#parts;
    this.#file = await StepFile.open<Line>(path, this.#done, keyOf);
    const added: Line[] = [];
    for (const line of state?.unwritten ?? []) if (await this.#file.append(line)) added.push(line);
    const lines = [...this.#file.earlier, ...added];
    this.#metrics = lines.filter((line): line is StepMetrics => 'loss' in line);
    await cutSamples(this.#config.outDir, this.#told);
    this.#started = performance.now() - (state?.seconds ?? 0) * 1000;
    this.#lastDone = performance.now();
  }

  #tellStart(): void {
    const { model, data } = this.#parts;
    const { training, numTokens } = data;
    const { onStart } = this.#options;
    onStart?.({
      model,
      policy: this.#policy,
      numSteps: this.#numSteps,
      stepsDone: this.#done,
      numTokens,
      numSequences: training.length,
      longestSequence: training.T,
      isPacked: training.isPacked,
    });
  }

  async #steps(optimizer: AdamW, trainStep: TrainStep): Promise<void> {
    const { checkpoint } = this.#config;
    const { signal } = this.#options;
    if (this.#told < this.#done && (await this.#tell(this.#done)).isTold) this.#told = this.#done;
    for (let step = this.#done + 1; step <= this.#numSteps && !signal?.aborted; step++) {
      if (!(await this.#enqueue(step, trainStep))) break;
      await this.#logPending(1);
      const saves = this.#isDue(step, checkpoint.everySteps);
      if (!saves && !this.#tells(step)) continue;
      await this.#logPending();
      const { isTold, isBest } = await this.#tell(step);
      if (!isTold) break;
      this.#told = step;
      if (saves || (isBest && checkpoint.keepBest)) await this.#save(optimizer, step);
      this.#lastDone = performance.now();
    }
    await this.#logPending();
    const isWhole = this.#done >= this.#numSteps && this.#isTold(this.#done);
    if (this.#done > this.#saved && !isWhole) await this.#save(optimizer, this.#done);
  }

  #isDue(step: number, every?: number): boolean {
    return every !== undefined && (step % every === 0 || step === this.#numSteps);
  }

  #isTold(step: number): boolean {
    return this.#told === step || !this.#tells(step);
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

  /** False where `signal` stopped it before the update. */
  async #enqueue(step: number, trainStep: TrainStep): Promise<boolean> {
    const { device } = this.#parts.model;
    const { signal } = this.#options;
    const batches = await this.#batches.of(step - 1);
    const learningRate = learningRateAt(step - 1, this.#schedule);
    device.arena.resetPeak();
    try {
      const result = await trainStep.run(batches, { learningRate, step, signal });
      this.#enqueued = step;
      this.#pending.push({ step, result, learningRate, peakBytes: device.memory().reservedBytes });
      return true;
    } catch (error) {
      if (signal?.aborted && error === signal.reason) return false;
      throw error;
    }
  }

  /** Waits for the steps under way, but for the last `numLeft`, and tells of each. */
  async #logPending(numLeft = 0): Promise<void> {
    while (this.#pending.length > numLeft) await this.#log(this.#pending.shift()!);
  }

  async #log({ step, result, learningRate, peakBytes }: PendingStep): Promise<void> {
    const { numTargets } = result;
    const [loss, gradNorm] = await Promise.all([result.loss, result.gradNorm]);
    await this.#nonFinite.check(step, loss, gradNorm, result, this.#parts.model);
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
    this.#done = step;
    this.#metrics.push(line);
    await this.#write(line);
    this.#options.onStep?.(line, this.#numSteps);
    this.#nonFinite.endWhereLost();
  }

  async #write(line: Line): Promise<void> {
    try {
      await this.#file.append(line);
    } catch (error) {
      this.#unwritten.push(line);
      throw error;
    }
  }

  /** Whether this is the best so far; null where `signal` came between. */
  async #evaluate(step: number): Promise<boolean | null> {
    const { model, data } = this.#parts;
    const { signal, onEvaluation } = this.#options;
    const options = { policy: this.#policy, batchSize: this.#config.batchSize, signal };
    const evaluation = await evaluate(model, data.validation!, options);
    if (!evaluation) return null;
    await this.#write({ step, ...evaluation });
    onEvaluation?.({ step, ...evaluation });
    this.#best = better(this.#best, step, evaluation);
    return this.#best?.step === step;
  }

  async #sample(step: number): Promise<void> {
    const { outDir, samples, seed } = this.#config;
    const { model, tokenizer } = this.#parts;
    const { onSample } = this.#options;
    const file = await openSamples(outDir, step - 1);
    try {
      for (const sample of await writeSamples(model, tokenizer, samples, { step, seed })) {
        await file.append(sample);
        onSample?.(sample);
      }
      await file.sync();
    } finally {
      await file.close();
    }
  }

  async #save(optimizer: AdamW, step: number): Promise<void> {
    const { model, checkpoints, machine, sources } = this.#parts;
    if (this.#unwritten.length === 0) await this.#file.sync();
    const state = {
      step,
      isTold: this.#isTold(step),
      seconds: (performance.now() - this.#started) / 1000,
      policy: this.#policy,
      best: this.#best,
      machine,
      sources,
      unwritten: this.#unwritten,
      config: this.#config,
    };
    await checkpoints.save(model, optimizer, state, this.#beside);
    this.#saved = step;
  }

  /**
   * Where a file could not be read or written, the model in memory is sound: a checkpoint is tried. After any other error it need not be;
   * the last checkpoint is what remains.
   */
  async #rescue(optimizer: AdamW, error: unknown): Promise<void> {
    const isSkipped = error instanceof NonFiniteError && this.#config.nonFinite === 'skip';
    if (!isSkipped && !/^E[A-Z0-9]+$/.test(String((error as NodeJS.ErrnoException | null)?.code))) return;
    try {
      while (this.#pending.length > 0) {
        const { step } = this.#pending[0]!;
        await this.#logPending(this.#pending.length - 1).catch(() => {}); // a line that fails is kept in the checkpoint
        if (this.#done < step) return; // it is not known what the step has done
      }
      if (this.#done <= this.#saved || this.#done < this.#enqueued) return;
      await this.#save(optimizer, this.#done);
      const message = `a checkpoint of step ${this.#done} was saved before the run ends with an error; --resume goes on from it`;
      this.#options.onWarning?.({ code: 'saved', message });
    } catch {
      // what the run ends with is the first error
    }
  }
}

/** Whether conversations are rendered otherwise than the model's own files say. */
function hasOwnTemplate({ data: { chatTemplate, templateVariables = {} } }: RunConfig): boolean {
  return chatTemplate !== undefined || Object.keys(templateVariables).length > 0;
}
