// The events of a run on their way to the files that keep them and to who listens.
import type { RunEvent, RunWarning, TrainOptions } from './events.ts';

export class RunEvents {
  readonly #tell: (event: RunEvent) => void;
  #keep: (event: RunEvent) => Promise<void> = async () => {};

  constructor(options: TrainOptions) {
    this.#tell = listenerOf(options);
  }

  /** @param keep writes what is to be found again; who listens is told afterwards, and of nothing that could not be written */
  keepBy(keep: (event: RunEvent) => Promise<void>): void {
    this.#keep = keep;
  }

  async emit(event: RunEvent): Promise<void> {
    await this.#keep(event);
    this.#tell(event);
  }

  /** A warning is told at once, and not kept. */
  warn(warning: RunWarning): void {
    this.#tell({ type: 'warning', warning });
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
