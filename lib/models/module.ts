// A model as optimizers and files see it: named parameters.
import type { Parameter } from '../autograd/parameter.ts';

export abstract class Module {
  /** Parameters by name, in a fixed order. A parameter that is used twice appears once. */
  abstract namedParameters(): ReadonlyMap<string, Parameter>;

  parameters(): Parameter[] {
    return [...this.namedParameters().values()];
  }
  /** Parameters that are not frozen. */
  trainableParameters(): Parameter[] {
    return this.parameters().filter((parameter) => parameter.requiresGrad);
  }
  numParameters(): number {
    return this.parameters().reduce((sum, { size }) => sum + size, 0);
  }

  /** Freezes the parameters whose names `matches` accepts. @default all */
  freeze(matches: (name: string) => boolean = () => true): this {
    return this.#setRequiresGrad(matches, false);
  }
  unfreeze(matches: (name: string) => boolean = () => true): this {
    return this.#setRequiresGrad(matches, true);
  }

  /** Frees all gradients. */
  zeroGrad(): void {
    for (const parameter of this.parameters()) parameter.zeroGrad();
  }

  dispose(): void {
    for (const parameter of this.parameters()) parameter.dispose();
  }
  [Symbol.dispose](): void {
    this.dispose();
  }

  #setRequiresGrad(matches: (name: string) => boolean, requiresGrad: boolean): this {
    for (const [name, parameter] of this.namedParameters()) if (matches(name)) parameter.requiresGrad = requiresGrad;
    return this;
  }
}
