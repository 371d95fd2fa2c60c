// What follows some steps of a run: validation and samples.
import type { StepPolicy } from '../models/policy.ts';
import { better } from './checkpoint.ts';
import type { RunConfig } from './config.ts';
import { type Evaluation, evaluate } from './evaluate.ts';
import type { RunEvents } from './event_stream.ts';
import type { RunParts } from './run_parts.ts';
import type { RunState } from './run_state.ts';
import { openSamples, writeSamples } from './samples.ts';

/** Whether something that is done every so many steps, and at the end, is due after a step. */
export function isDue(step: number, numSteps: number, every?: number): boolean {
  return every !== undefined && (step % every === 0 || step === numSteps);
}

export interface AfterStepsOptions {
  policy: StepPolicy;
  numSteps: number;
  events: RunEvents;
  signal?: AbortSignal;
}

export class AfterSteps {
  readonly #config: RunConfig;
  readonly #parts: RunParts;
  readonly #options: AfterStepsOptions;
  /** The last step whose validation and samples are done, if any were due. */
  #done: number;
  best: RunState['best'];

  constructor(config: RunConfig, parts: RunParts, options: AfterStepsOptions) {
    this.#config = config;
    this.#parts = parts;
    this.#options = options;
    const { state } = parts;
    this.best = state?.best ?? null;
    this.#done = state ? state.step - (state.isTold ? 0 : 1) : 0;
  }

  /** The last step with nothing left to do after it. */
  get done(): number {
    return this.#done;
  }

  isDone(step: number): boolean {
    return this.#done === step || !this.isDue(step);
  }

  /** Whether validation or samples follow a step. */
  isDue(step: number): boolean {
    const { evaluation, samples } = this.#config;
    const { numSteps } = this.#options;
    return isDue(step, numSteps, evaluation.everySteps) || isDue(step, numSteps, samples.everySteps);
  }

  /** Validates and writes samples where they are due. isDone: `signal` has not come between. */
  async run(step: number): Promise<{ isDone: boolean; isBest: boolean }> {
    const { evaluation, samples } = this.#config;
    const { numSteps } = this.#options;
    let isBest: boolean | null = false;
    if (this.isDue(step)) {
      if (await this.#isStopped(step)) return { isDone: false, isBest };
      if (isDue(step, numSteps, evaluation.everySteps)) isBest = await this.#evaluate(step);
      if (isBest === null) return { isDone: false, isBest: false };
      if (isDue(step, numSteps, samples.everySteps)) await this.#sample(step);
    }
    this.#done = step;
    return { isDone: true, isBest };
  }

  /** What other ranks than 0 do while that runs what is due: where ranks share sequences, all validate. */
  async help(step: number): Promise<void> {
    if (this.#validatesTogether(step) && !(await this.#isStopped(step))) await this.#validated();
  }

  #validatesTogether(step: number): boolean {
    const { evaluation, parallel } = this.#config;
    return parallel.sequence > 1 && isDue(step, this.#options.numSteps, evaluation.everySteps);
  }

  /** Whether the signal has come; to any rank, where all validate. */
  async #isStopped(step: number): Promise<boolean> {
    const isAborted = this.#options.signal?.aborted ?? false;
    return this.#validatesTogether(step) ? await this.#parts.ranks.any(isAborted) : isAborted;
  }

  async #validated(): Promise<Evaluation | null> {
    const { model, data, ranks } = this.#parts;
    const { policy, signal } = this.#options;
    const { batchSize } = this.#config;
    const sequence = ranks.sequence(this.#config);
    const options = { policy, batchSize };
    if (!sequence) return await evaluate(model, data.validation!, { ...options, signal });
    return await evaluate(model, data.validation!, {
      ...options,
      shared: { sequence, part: ranks.part(this.#config), ranks },
    });
  }

  /** Whether this is the best so far; null where `signal` came between. */
  async #evaluate(step: number): Promise<boolean | null> {
    const evaluation = await this.#validated();
    if (!evaluation) return null;
    const { events } = this.#options;
    await events.emit({ type: 'evaluation', metrics: { step, ...evaluation } });
    this.best = better(this.best, step, evaluation);
    return this.best?.step === step;
  }

  async #sample(step: number): Promise<void> {
    const { outDir, samples, seed } = this.#config;
    const { model, tokenizer } = this.#parts;
    const file = await openSamples(outDir, step - 1);
    try {
      for (const sample of await writeSamples(model, tokenizer, samples, { step, seed })) {
        await file.append(sample);
        await this.#options.events.emit({ type: 'sample', sample });
      }
      await file.sync();
    } finally {
      await file.close();
    }
  }
}
