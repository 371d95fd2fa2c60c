// metrics.jsonl: one line for each step and each validation of a run.
import { join } from 'node:path';
import type { RunEvent } from './events.ts';
import type { EvaluationMetrics, StepMetrics } from './metrics.ts';
import type { RunState } from './run_state.ts';
import { StepFile } from './step_file.ts';

export type MetricsLine = StepMetrics | EvaluationMetrics;

export class MetricsFile {
  readonly #file: StepFile<MetricsLine>;
  /** Of every step, earlier ones of a continued run among them. */
  readonly steps: StepMetrics[] = [];
  /** Lines that the file could not take. */
  readonly unwritten: MetricsLine[] = [];

  private constructor(file: StepFile<MetricsLine>) {
    this.#file = file;
  }

  /** Starts a new file, or continues after the state's step with the lines that could not be written then. */
  static async open(outDir: string, state: RunState | null): Promise<MetricsFile> {
    const keyOf = (line: MetricsLine) => `${line.step} ${'loss' in line}`;
    const file = await StepFile.open<MetricsLine>(join(outDir, 'metrics.jsonl'), state?.step ?? 0, keyOf);
    const metrics = new MetricsFile(file);
    const added: MetricsLine[] = [];
    for (const line of state?.unwritten ?? []) if (await file.append(line)) added.push(line);
    for (const line of [...file.earlier, ...added]) if ('loss' in line) metrics.steps.push(line);
    return metrics;
  }

  /** Writes the line of an event that has one; one that cannot be written is kept for the next checkpoint. */
  async keep(event: RunEvent): Promise<void> {
    if (event.type !== 'step' && event.type !== 'evaluation') return;
    if (event.type === 'step') this.steps.push(event.metrics);
    try {
      await this.#file.append(event.metrics);
    } catch (error) {
      this.unwritten.push(event.metrics);
      throw error;
    }
  }

  /** Syncs the file: the lines so far survive a loss of power. */
  async sync(): Promise<void> {
    await this.#file.sync();
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}
