// Helpers to define filters and tests.
import type { Budget } from '../budget.ts';
import { bind, type Parameters } from '../signature.ts';
import type { Arguments, Value } from '../values.ts';

/** What a filter knows about {% autoescape %}. */
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

/** A filter whose result is different if {% autoescape %} is on. */
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
