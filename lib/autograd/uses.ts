// When a parameter's gradient is complete.
import { tidy } from '../runtime/scope.ts';
import type { Parameter } from './parameter.ts';

/** Called with a parameter whose `grad` is complete; may use it, change the parameter and free the gradient. */
export type OnGradient = (parameter: Parameter) => void;

/** How often parameters are still used in what is left of a backward. */
export class Uses {
  readonly #left = new Map<Parameter, number>();
  readonly #onGradient: OnGradient;

  /** @param parameters of a whole tape, each as often as it is used */
  constructor(parameters: Iterable<Parameter>, onGradient: OnGradient) {
    for (const parameter of parameters) this.#left.set(parameter, (this.#left.get(parameter) ?? 0) + 1);
    this.#onGradient = onGradient;
  }

  /** Takes away uses that have given what they give, and returns the parameters that none is left of. */
  takeAway(parameters: readonly Parameter[]): Parameter[] {
    return parameters.filter((parameter) => {
      const left = this.#left.get(parameter)! - 1;
      this.#left.set(parameter, left);
      return left === 0;
    });
  }

  /** Parameters that got no gradient, since the output did not depend on them, are not told. */
  tell(parameters: readonly Parameter[]): void {
    for (const parameter of parameters) if (parameter.grad) tidy(() => this.#onGradient(parameter));
  }
}
