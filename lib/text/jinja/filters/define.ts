// How a filter or test is written down.
import type { Budget } from '../budget.ts';
import { bind, type Parameters } from '../signature.ts';
import type { Arguments, Value } from '../values.ts';

/** What a filter sees of {% autoescape %}. */
export interface Escaping {
  readonly isEscaping: boolean;
}

export type Filter = (budget: Budget, value: Value, args: Arguments, escaping: Escaping) => Value;

/** A filter whose arguments are bound to parameters. */
export function filter(
  name: string,
  parameters: Parameters,
  run: (budget: Budget, value: Value, ...args: (Value | undefined)[]) => Value,
): [string, Filter] {
  return [name, (budget, value, args) => run(budget, value, ...bind(name, parameters, args))];
}

/** A filter that gives something else where {% autoescape %} is on. */
export function escapingFilter(
  name: string,
  parameters: Parameters,
  run: (isEscaping: boolean, budget: Budget, value: Value, ...args: (Value | undefined)[]) => Value,
): [string, Filter] {
  return [
    name,
    (budget, value, args, { isEscaping }) => run(isEscaping, budget, value, ...bind(name, parameters, args)),
  ];
}
