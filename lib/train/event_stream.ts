// Sends the events of a run to the files that keep them and to listeners.
import type { RunEvent, RunWarning, TrainOptions } from './events.ts';

export class RunEvents {
  readonly #notify: (event: RunEvent) => void;
  #keep: (event: RunEvent) => Promise<void> = async () => {};

  constructor(options: TrainOptions) {
    this.#notify = listenerOf(options);
  }

  /** @param keep writes the event to files; listeners get it afterwards, and never one that could not be written */
  keepBy(keep: (event: RunEvent) => Promise<void>): void {
    this.#keep = keep;
  }

  async emit(event: RunEvent): Promise<void> {
    await this.#keep(event);
    this.#notify(event);
  }

  /** A warning goes to listeners at once, and is not kept. */
  warn(warning: RunWarning): void {
    this.#notify({ type: 'warning', warning });
  }
}

function listenerOf(options: TrainOptions): (event: RunEvent) => void {
  const { onEvent, onStart, onStep, onEvaluation, onSample, onSkip, onWarning } = options;
  return (event) => {
    onEvent?.(event);
    if (event.type === 'start') onStart?.(event.start);
    else if (event.type === 'step') onStep?.(event.metrics, event.numSteps);
    else if (event.type === 'evaluation') onEvaluation?.(event.metrics);
    else if (event.type === 'sample') onSample?.(event.sample);
    else if (event.type === 'skip') onSkip?.(event.message);
    else if (event.type === 'warning') onWarning?.(event.warning);
  };
}
