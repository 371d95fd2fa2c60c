// Binds the arguments of a call to the parameters of a builtin.
import type { Budget } from './budget.ts';
import { TemplateError } from './errors.ts';
import type { Arguments, Value } from './values.ts';

/**
 * Names of parameters: `width` is required, `width?` is optional, `/width` is positional only, `*rest` gets all that is left and comes
 * last.
 */
export type Parameters = readonly string[];

export const NO_ARGUMENTS: Arguments = { positional: [], named: new Map() };

/** The value of each parameter; undefined if it has none. @throws TemplateError if the arguments do not match */
export function bind(name: string, parameters: Parameters, { positional, named }: Arguments): (Value | undefined)[] {
  if (named.size === 0 && positional.length === 0 && parameters.length === 0) return [];
  const bound: (Value | undefined)[] = [];
  let taken = 0;
  for (const [i, parameter] of parameters.entries()) {
    if (parameter.startsWith('*')) return [...bound, positional.slice(i)];
    const plain = parameter.replace(/^\/|\?$/g, '');
    let value: Value | undefined = positional[i];
    if (!parameter.startsWith('/') && named.has(plain)) {
      if (i < positional.length) throw new TemplateError(`${name}() got multiple values for argument '${plain}'`);
      value = named.get(plain);
      taken += 1;
    }
    if (value === undefined && !parameter.endsWith('?'))
      throw new TemplateError(`${name}() misses the argument '${plain}'`);
    bound.push(value);
  }
  if (positional.length > parameters.length) {
    throw new TemplateError(`${name}() takes at most ${parameters.length} arguments (${positional.length} given)`);
  }
  if (taken < named.size) {
    const unknown = [...named.keys()].find((key) => !parameters.some((one) => one === key || one === `${key}?`));
    throw new TemplateError(`${name}() got an unexpected keyword argument '${unknown}'`);
  }
  return bound;
}

/** Builtins by name. Each gets a value (the object of a method, the input of a filter) and arguments. */
export interface Builtins<T> {
  parameters: Parameters;
  run(context: T, value: Value, ...args: (Value | undefined)[]): Value;
}

export type Methods = ReadonlyMap<string, Builtins<Budget>>;
