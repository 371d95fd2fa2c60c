// Filters of numbers and of any value.

import { attributeOf, getAttribute, getItem } from '../attributes.ts';
import type { Budget } from '../budget.ts';
import { TemplateError } from '../errors.ts';
import { roundFloat } from '../format_number.ts';
import {
  calculate,
  type Numeric,
  negate,
  numberText,
  parseFloating,
  parseInteger,
  toFloat,
  toIndex,
} from '../numbers.ts';
import { pretty } from '../pretty.ts';
import { length } from '../str_methods.ts';
import { toJson } from '../to_text.ts';
import {
  float,
  int,
  isFloat,
  isNumber,
  isString,
  isTrue,
  listOf,
  textIn,
  typeName,
  Undefined,
  type Value,
} from '../values.ts';
import { type Filter, filter } from './define.ts';

function toInt(budget: Budget, value: Value, otherwise: Value = 0, base: Value = 10): Value {
  if (value instanceof Undefined) throw new TemplateError(value.message);
  if (isString(value)) {
    const text = numberText(textIn(value));
    budget.text(text.length);
    const whole = parseInteger(text, toIndex(base, 'a base'));
    if (whole !== null) return whole;
    const parsed = parseFloating(text);
    return parsed === null || Number.isNaN(parsed) ? otherwise : truncated(parsed);
  }
  if (!isNumber(value)) return otherwise;
  if (isFloat(value)) return Number.isNaN(Number(value)) ? otherwise : truncated(Number(value));
  return typeof value === 'boolean' ? Number(value) : value;
}

function truncated(value: number): number | bigint {
  if (!Number.isFinite(value)) throw new TemplateError('cannot convert float infinity to integer');
  return int(BigInt(Math.trunc(value)));
}

function toFloating(value: Value, otherwise: Value = float(0)): Value {
  if (value instanceof Undefined) throw new TemplateError(value.message);
  if (isNumber(value)) return float(toFloat(value));
  const parsed = isString(value) ? parseFloating(numberText(textIn(value))) : null;
  return parsed === null ? otherwise : float(parsed);
}

function rounded(budget: Budget, value: Value, precision: Value = 0, method: Value = 'common'): Value {
  if (method !== 'common' && method !== 'ceil' && method !== 'floor') {
    throw new TemplateError('method must be common, ceil or floor');
  }
  if (value instanceof Undefined) throw new TemplateError(value.message);
  if (!isNumber(value)) throw new TemplateError(`type ${typeName(value)} doesn't define __round__ method`);
  const digits = precision === null && method === 'common' ? 0 : toIndex(precision, 'a precision');
  if (precision === null && isFloat(value)) return truncated(roundFloat(Number(value), 0));
  if (method === 'common') return isFloat(value) ? float(roundFloat(Number(value), digits)) : roundedInt(value, digits);
  const scale = calculate(budget, '**', 10, digits) as Numeric;
  const scaled = calculate(budget, '*', value, scale) as Numeric;
  const whole = isFloat(scaled) ? truncated(Math[method](Number(scaled))) : scaled;
  return calculate(budget, '/', whole, scale);
}

/** Python also rounds ints, to tens, hundreds and so on, ties to even. */
function roundedInt(value: Numeric, digits: number): Value {
  const whole = BigInt(Number.isSafeInteger(Number(value)) ? Number(value) : (value as bigint));
  if (digits >= 0) return int(whole);
  if (digits < -5000) return 0;
  const unit = 10n ** BigInt(-digits);
  const rest = ((whole % unit) + unit) % unit;
  const floor = whole - rest;
  const isUp = rest * 2n > unit || (rest * 2n === unit && (floor / unit) % 2n !== 0n);
  return int(isUp ? floor + unit : floor);
}

function json(
  budget: Budget,
  value: Value,
  ensureAscii: Value = false,
  indent: Value = null,
  separators: Value = null,
  sortKeys: Value = false,
): Value {
  const pair = separators === null ? null : listOf(budget, separators).map((one) => textOrFail(one));
  if (pair && pair.length !== 2) throw new TemplateError('separators must be a pair of texts');
  return toJson(budget, value, {
    ensureAscii: isTrue(ensureAscii),
    indent: indent === null ? null : isString(indent) ? textIn(indent) : ' '.repeat(indentOf(indent)),
    separators: pair as [string, string] | null,
    sortKeys: isTrue(sortKeys),
  });
}

function indentOf(value: Value): number {
  const columns = Math.max(0, toIndex(value, 'an indent'));
  if (columns > 1000) throw new TemplateError(`an indent of ${columns} (at most 1000)`);
  return columns;
}

function textOrFail(value: Value): string {
  if (isString(value)) return textIn(value);
  throw new TemplateError(`'${typeName(value)}' is no str`);
}

/** The result of random if there is only one item. */
function onlyItem(budget: Budget, value: Value): Value {
  const count = length(budget, value);
  if (count === 0) return new Undefined('No random item, sequence was empty.');
  if (count > 1) throw new TemplateError('random returns a different item each time');
  const item = getItem(budget, value, 0);
  if (item instanceof Undefined) throw new TemplateError(item.message);
  return item;
}

const orDefault = (_: Budget, value: Value, otherwise: Value = '', boolean: Value = false): Value =>
  value instanceof Undefined || (isTrue(boolean) && !isTrue(value)) ? otherwise : value;

export const VALUE_FILTERS: [string, Filter][] = [
  filter('default', ['default_value?', 'boolean?'], orDefault),
  filter('d', ['default_value?', 'boolean?'], orDefault),
  filter('length', [], length),
  filter('count', [], length),
  filter('abs', [], (_, value) => {
    if (value instanceof Undefined || !isNumber(value))
      throw new TemplateError(`bad operand type for abs(): '${typeName(value)}'`);
    return Number(value) < 0 || Object.is(Number(value), -0)
      ? negate(value)
      : typeof value === 'boolean'
        ? Number(value)
        : value;
  }),
  filter('int', ['default?', 'base?'], toInt),
  filter('float', ['default?'], (_, value, otherwise) => toFloating(value, otherwise)),
  filter('round', ['precision?', 'method?'], rounded),
  filter('tojson', ['ensure_ascii?', 'indent?', 'separators?', 'sort_keys?'], json),
  filter('pprint', [], pretty),
  filter('attr', ['name'], (budget, value, name) => {
    const text = textOrFail(name!);
    if (attributeOf(budget, value, text) !== undefined) return getAttribute(budget, value, text);
    return new Undefined(`'${typeName(value)} object' has no attribute '${text}'`);
  }),
  filter('random', [], onlyItem),
];
