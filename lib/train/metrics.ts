// What a run reports of each step on the terminal and in metrics.jsonl.
import { formatBytes } from '../runtime/memory/statistics.ts';
import type { Evaluation } from './evaluate.ts';

export interface StepMetrics {
  /** From 1. */
  step: number;
  /** Mean over the targets of this step. */
  loss: number;
  /** Before clipping. */
  gradNorm: number;
  learningRate: number;
  /** Targets of this step. */
  tokens: number;
  tokensPerSecond: number;
  /** Reserved by the arena in this step. */
  peakBytes: number;
  /** Since the start of the run. */
  seconds: number;
}

/** Results of validation after a step. */
export interface EvaluationMetrics extends Evaluation {
  step: number;
}

/** One step for people. */
export function formatMetrics(metrics: StepMetrics, numSteps: number): string {
  const { step, loss, gradNorm, learningRate, tokensPerSecond, peakBytes, seconds } = metrics;
  const left = (seconds / step) * (numSteps - step); // `seconds` counts a continued run from its first start
  return [
    `step ${String(step).padStart(String(numSteps).length)}/${numSteps}`,
    `loss ${loss.toFixed(4)}`,
    `lr ${learningRate.toExponential(2)}`,
    `norm ${gradNorm.toFixed(2)}`,
    `${Math.round(tokensPerSecond)} tokens/s`,
    `peak ${formatBytes(peakBytes)}`,
    `${formatSeconds(left)} left`,
  ].join('  ');
}

function formatSeconds(seconds: number): string {
  const whole = Math.round(seconds);
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  const pad = (value: number) => String(value).padStart(2, '0');
  return `${hours > 0 ? `${hours}:${pad(minutes)}` : minutes}:${pad(whole % 60)}`;
}

/** A line that rewrites itself on a terminal; plain lines elsewhere. */
export class Progress {
  readonly #stream: Pick<NodeJS.WriteStream, 'isTTY' | 'columns' | 'write'>;
  #isShowing = false;

  constructor(stream: Pick<NodeJS.WriteStream, 'isTTY' | 'columns' | 'write'>) {
    this.#stream = stream;
  }
  show(line: string): void {
    const { isTTY, columns } = this.#stream;
    // A terminal of unknown width reports 0 columns.
    this.#stream.write(isTTY ? `\r\x1b[K${line.slice(0, (columns || 80) - 1)}` : `${line}\n`);
    this.#isShowing = isTTY;
  }
  /** A line that stays, above the one that rewrites itself. */
  note(line: string): void {
    this.end();
    this.#stream.write(`${line}\n`);
  }
  /** Ends the line that rewrites itself. */
  end(): void {
    if (this.#isShowing) this.#stream.write('\n');
    this.#isShowing = false;
  }
}
