// Steps whose loss or gradients are NaN or infinite, or which make parameters so.
import type { Decoder } from '../models/decoder.ts';
import { firstNonFinite } from '../optim/finite.ts';
import type { StepResult } from '../step/train_step.ts';
import type { RunConfig } from './config.ts';
import { NonFiniteError } from './events.ts';

/** After so many in a row the run is lost, not a step. */
const MAX_SKIPPED = 10;

/**
 * Stops a run at such a step or, if they are skipped, at the tenth in a row. With the optimizer step in the backward a step is skipped for
 * its loss alone: a gradient that is not finite comes when other parameters are updated, and always stops the run.
 */
export class NonFiniteSteps {
  readonly #choice: RunConfig['nonFinite'];
  readonly #inBackward: boolean;
  readonly #onSkip: (message: string) => Promise<void>;
  #inARow = 0;
  #problem = '';

  constructor({ nonFinite, optimizer }: RunConfig, onSkip: (message: string) => Promise<void>) {
    this.#choice = nonFinite;
    this.#inBackward = optimizer.inBackward;
    this.#onSkip = onSkip;
  }

  /** @throws NonFiniteError where such steps are not skipped */
  async check(step: number, loss: number, gradNorm: number, result: StepResult, model: Decoder): Promise<void> {
    if (Number.isFinite(loss) && Number.isFinite(gradNorm)) {
      this.#inARow = 0;
      return;
    }
    const isHalfDone = this.#inBackward && Number.isFinite(loss);
    const problem = await describe(step, loss, result, model);
    if (isHalfDone) {
      throw new NonFiniteError(
        `${problem}, and with optimizer.inBackward true other parameters were updated in the same backward: the model in memory is lost, ` +
          'and --resume goes on from the last checkpoint',
        { isHalfDone },
      );
    }
    this.#problem = `${problem}; no parameter was changed by it`;
    if (this.#choice === 'stop') throw new NonFiniteError(this.#problem);
    this.#inARow += 1;
    await this.#onSkip(this.#problem);
  }

  /** @throws NonFiniteError after too many in a row */
  endWhereLost(): void {
    if (this.#inARow < MAX_SKIPPED) return;
    throw new NonFiniteError(
      `${this.#problem}; ${this.#inARow} steps in a row were skipped, and nonFinite 'skip' ends the run at ${MAX_SKIPPED}`,
    );
  }
}

/**
 * @param saved step of the last checkpoint; 0: there is none
 * @throws NonFiniteError that names the step and the first trained parameter with a value that is NaN or infinite
 */
export async function requireFiniteParameters(step: number, model: Decoder, saved: number): Promise<void> {
  const parameter = await firstNonFinite(model.trainableParameters());
  if (!parameter) return;
  const remains = saved > 0 ? `--resume goes on from the checkpoint of step ${saved}` : 'there is no checkpoint';
  throw new NonFiniteError(
    `step ${step}: the update made values of ${parameter.name} that are NaN or infinite; they are not saved, and ${remains}`,
    { isHalfDone: true },
  );
}

/** Names the step and the first tensor whose gradient is not finite. */
async function describe(step: number, loss: number, result: StepResult, model: Decoder): Promise<string> {
  if (!Number.isFinite(loss)) return `step ${step}: the loss is ${loss}`;
  const squares = await result.squares();
  const index = squares.findIndex((value) => !Number.isFinite(value));
  const name = model.trainableParameters()[index]?.name ?? 'all parameters together';
  return `step ${step}: the gradient of ${name} is not finite`;
}
