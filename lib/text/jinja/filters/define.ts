// How a filter or test is written down.
import type { Budget } from '../budget.ts';
import { bind, type Parameters } from '../signature.ts';
import type { Arguments, Value } from '../values.ts';

export type Filter = (budget: Budget, value: Value, args: Arguments) => Value;

/** A filter whose arguments are bound to parameters. */
export function filter(
  name: string,
  parameters: Parameters,
  run: (budget: Budget, value: Value, ...args: (Value | undefined)[]) => Value,
): [string, Filter] {
  return [name, (budget, value, args) => run(budget, value, ...bind(name, parameters, args))];
}
