// The tests of jinja2: `value is name(…)`.
import type { Budget } from './budget.ts';
import { Bytes } from './bytes.ts';
import { Dict } from './dict.ts';
import { type Filter, filter } from './filters/define.ts';
import { compare, contains, equals, isSame, operate } from './operators.ts';
import type { Parameters } from './signature.ts';
import { isLower, isUpper } from './str_methods.ts';
import { str } from './to_text.ts';
import {
  isFloat,
  isInt,
  isNumber,
  isString,
  lengthOrNull,
  Markup,
  Obj,
  Once,
  Range,
  Tuple,
  tryIterate,
  Undefined,
  type Value,
} from './values.ts';

type Run = (budget: Budget, value: Value, ...args: Value[]) => boolean;

export function test(names: string, parameters: Parameters, run: Run): [string, Filter][] {
  return names.split(' ').map((name) => filter(name, parameters, run as (budget: Budget, value: Value) => Value));
}

const isZero = (budget: Budget, value: Value, divisor: Value, rest: Value) =>
  equals(budget, operate(budget, '%', value, divisor), rest);

const isSequence = (value: Value) =>
  isString(value) ||
  (lengthOrNull(value) !== null && [Tuple, Dict, Range, Bytes].some((kind) => value instanceof kind)) ||
  Array.isArray(value);

/** All tests except `filter` and `test`; for these see filters.ts. */
export const VALUE_TESTS: ReadonlyMap<string, Filter> = new Map<string, Filter>([
  ...test('defined', [], (_, value) => !(value instanceof Undefined)),
  ...test('undefined', [], (_, value) => value instanceof Undefined),
  ...test('none', [], (_, value) => value === null),
  ...test('boolean', [], (_, value) => typeof value === 'boolean'),
  ...test('true', [], (_, value) => value === true),
  ...test('false', [], (_, value) => value === false),
  ...test('integer', [], (_, value) => isInt(value)),
  ...test('float', [], (_, value) => isFloat(value)),
  ...test('number', [], (_, value) => isNumber(value)),
  ...test('string', [], (_, value) => isString(value)),
  ...test('mapping', [], (_, value) => value instanceof Dict),
  ...test('sequence', [], (_, value) => value instanceof Undefined || isSequence(value)),
  ...test('iterable', [], (budget, value) => value instanceof Once || tryIterate(budget, value) !== null),
  ...test('callable', [], (_, value) => value instanceof Obj && value.isCallable),
  ...test('escaped', [], (_, value) => value instanceof Markup),
  ...test('lower', [], (budget, value) => isLower(str(budget, value))),
  ...test('upper', [], (budget, value) => isUpper(str(budget, value))),
  ...test('odd', [], (budget, value) => isZero(budget, value, 2, 1)),
  ...test('even', [], (budget, value) => isZero(budget, value, 2, 0)),
  ...test('divisibleby', ['num'], (budget, value, divisor) => isZero(budget, value, divisor, 0)),
  ...test('sameas', ['other'], (_, value, other) => isSame(value, other)),
  ...test('in', ['seq'], (budget, value, sequence) => contains(budget, sequence, value)),
  ...test('== eq equalto', ['/other'], equals),
  ...test('!= ne', ['/other'], (budget, value, other) => !equals(budget, value, other)),
  ...test('> gt greaterthan', ['/other'], (budget, value, other) => compare(budget, '>', value, other) > 0),
  ...test('>= ge', ['/other'], (budget, value, other) => compare(budget, '>=', value, other) >= 0),
  ...test('< lt lessthan', ['/other'], (budget, value, other) => compare(budget, '<', value, other) < 0),
  ...test('<= le', ['/other'], (budget, value, other) => compare(budget, '<=', value, other) <= 0),
]);
