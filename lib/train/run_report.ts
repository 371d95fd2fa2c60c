// Writes run.json, report.html and TensorBoard's files of a run. What cannot be written is told once, and never ends the run.
import { arch, release, type } from 'node:os';
import { join } from 'node:path';
import { packageInfo } from '../io/package_info.ts';
import { writeWhole } from '../io/whole_file.ts';
import type { StepPolicy } from '../models/policy.ts';
import { FACTS_FILE, type RunFacts } from '../report/run_facts.ts';
import { writeReport } from '../report/run_report.ts';
import { stepTimeline } from '../step/timeline.ts';
import type { RunConfig } from './config.ts';
import type { RunEvent } from './events.ts';
import { comparedStep, compareMemory } from './memory_report.ts';
import type { RunParts } from './run_parts.ts';
import { TensorBoardFile } from './tensorboard.ts';

export interface RunProgress {
  policy: StepPolicy;
  numSteps: number;
  stepsDone: number;
}

export class RunReport {
  readonly #config: RunConfig;
  readonly #parts: RunParts;
  readonly #progress: RunProgress;
  #facts: RunFacts | null = null;
  #tensorBoard: TensorBoardFile | null = null;
  #isFailing = false;

  constructor(config: RunConfig, parts: RunParts, progress: RunProgress) {
    this.#config = config;
    this.#parts = parts;
    this.#progress = progress;
  }

  /** Before the first step. */
  async begin(): Promise<void> {
    const { tensorboard, outDir } = this.#config;
    if (tensorboard) {
      await this.#try(async () => {
        this.#tensorBoard = await TensorBoardFile.open(outDir, this.#progress.stepsDone);
      });
    }
    await this.#try(async () => {
      this.#facts = this.#factsOf();
      await this.#write();
    });
  }

  /** Hands an event to TensorBoard's file, if there is one. */
  async keep(event: RunEvent): Promise<void> {
    await this.#try(async () => await this.#tensorBoard?.keep(event));
  }

  /** With the steps so far. */
  async update(): Promise<void> {
    if (this.#facts) await this.#try(() => this.#write());
  }

  /** @param error what ended the run; null: nothing did */
  async end(finished: boolean, error: unknown): Promise<void> {
    await this.#try(async () => await this.#tensorBoard?.close());
    if (!this.#facts) return;
    const message = error === null ? null : error instanceof Error ? `${error.name}: ${error.message}` : String(error);
    this.#facts.end = { at: new Date().toISOString(), finished, error: message };
    await this.#try(() => this.#write());
  }

  async #try(write: () => Promise<void>): Promise<void> {
    try {
      await write();
    } catch (error) {
      if (this.#isFailing) return;
      this.#isFailing = true;
      const message = `the report of the run cannot be written: ${(error as Error).message}`;
      this.#parts.events.warn({ code: 'report', message });
    }
  }

  async #write(): Promise<void> {
    const { outDir } = this.#config;
    const text = JSON.stringify(this.#facts);
    await writeWhole(join(outDir, FACTS_FILE), (handle) => handle.writeFile(text));
    await writeReport(outDir, { isUnderWay: this.#facts!.end === null });
  }

  #factsOf(): RunFacts {
    const { model, data, machine, ranks } = this.#parts;
    const { policy, numSteps, stepsDone } = this.#progress;
    const { training, numTokens } = data;
    const { T, isPacked } = training;
    const step = comparedStep(this.#config, {
      model,
      policy,
      longestSequence: T,
      isPacked,
      shards: ranks.shards(this.#config),
    });
    const trained = model.trainableParameters().reduce((sum, { size }) => sum + size, 0);
    const { memoryLimit } = model.device;
    return {
      format: 1,
      started: new Date().toISOString(),
      versions: { minisequence: packageInfo().version, node: process.version },
      machine: {
        name: machine.name,
        device: `${model.device}${machine.target.kind === 'cpu' ? `, ${machine.target.threads} threads` : ''}`,
        system: `${type()} ${release()} ${arch()}`,
        memoryLimit: Number.isFinite(memoryLimit) ? memoryLimit : null,
      },
      model: {
        type: String(model.config.source.model_type),
        parameters: model.numParameters(),
        trained,
        layers: model.config.layers.length,
      },
      data: { tokens: numTokens, sequences: training.length, longestSequence: T, isPacked },
      steps: { total: numSteps, before: stepsDone },
      policy,
      plan: compareMemory(step),
      timeline: stepTimeline(step),
      end: null,
    };
  }
}
