// Reports when a parameter's gradient is complete.
import { tidy } from '../runtime/scope.ts';
import type { Parameter } from './parameter.ts';

/** Called with a parameter whose `grad` is complete. It may read the gradient, change the parameter and free the gradient. */
export type OnGradient = (parameter: Parameter) => void;

/** Counts how often the rest of a backward still uses each parameter. */
export class Uses {
  readonly #left = new Map<Parameter, number>();
  readonly #onGradient: OnGradient;

  /** @param parameters of a whole tape, once for each use */
  constructor(parameters: Iterable<Parameter>, onGradient: OnGradient) {
    for (const parameter of parameters) this.#left.set(parameter, (this.#left.get(parameter) ?? 0) + 1);
    this.#onGradient = onGradient;
  }

  /** Counts down uses whose backward has run. Returns the parameters with no uses left. */
  takeAway(parameters: readonly Parameter[]): Parameter[] {
    return parameters.filter((parameter) => {
      const left = this.#left.get(parameter)! - 1;
      this.#left.set(parameter, left);
      return left === 0;
    });
  }

  /** Reports complete gradients. Skips parameters without one: the output did not depend on them. */
  report(parameters: readonly Parameter[]): void {
    for (const parameter of parameters) if (parameter.grad) tidy(() => this.#onGradient(parameter));
  }
}
