// Python's operators, except the arithmetic of numbers.
import { compareCodePoints } from '../json.ts';
import type { Budget } from './budget.ts';
import { Bytes } from './bytes.ts';
import { Dict, DictView } from './dict.ts';
import { TemplateError } from './errors.ts';
import { toMarkup } from './html.ts';
import { calculate, compareNumbers, type Numeric, negate, toIndex } from './numbers.ts';
import { percentFormat } from './percent_format.ts';
import { indexOf } from './search.ts';
import {
  isNumber,
  isString,
  iterate,
  Markup,
  Obj,
  Range,
  Tuple,
  textIn,
  tryIterate,
  typeName,
  Undefined,
  type Value,
} from './values.ts';

/** a + b and the like, except `and` and `or`. */
export function operate(budget: Budget, operator: string, a: Value, b: Value): Value {
  if (isNumber(a) && isNumber(b)) return calculate(budget, operator, a, b);
  if (operator === '%' && isString(a)) return percentFormat(budget, a, b);
  if (a instanceof Undefined) return a.item();
  if (b instanceof Undefined) return b.item();
  if (operator === '+') {
    const sum = add(budget, a, b);
    if (sum !== undefined) return sum;
  }
  if (operator === '*') {
    const product = isInteger(b) ? repeat(budget, a, b) : isInteger(a) ? repeat(budget, b, a) : undefined;
    if (product !== undefined) return product;
  }
  throw new TemplateError(`unsupported operand types for ${operator}: '${typeName(a)}' and '${typeName(b)}'`);
}

const isInteger = (value: Value) => typeof value === 'boolean' || typeof value === 'bigint' || Number.isInteger(value);

function add(budget: Budget, a: Value, b: Value): Value | undefined {
  if (typeof a === 'string' && typeof b === 'string') {
    // Concatenated texts are ropes: nothing is copied until the text is read.
    budget.text((a.length + b.length) >>> 4);
    return joined(a, b);
  }
  if (isString(a) && isString(b)) return new Markup(joined(toMarkup(a).text, toMarkup(b).text));
  if (Array.isArray(a) && Array.isArray(b)) {
    budget.container(a.length + b.length);
    return [...a, ...b];
  }
  if (a instanceof Tuple && b instanceof Tuple) {
    budget.container(a.length + b.length);
    return new Tuple([...a.items, ...b.items]);
  }
  if (a instanceof Bytes && b instanceof Bytes) {
    budget.text(a.length + b.length);
    return new Bytes(Buffer.concat([a.data, b.data]));
  }
  return undefined;
}

/** Longest text in UTF-16 units. */
const MAX_UNITS = 2 ** 28;

function joined(a: string, b: string): string {
  if (a.length + b.length > MAX_UNITS) throw new TemplateError('makes too long a text');
  return a + b;
}

function repeat(budget: Budget, value: Value, times: Value): Value | undefined {
  const count = Math.max(0, toIndex(times, 'a count'));
  if (isString(value)) {
    budget.text(textIn(value).length * count);
    const text = textIn(value).repeat(textIn(value) === '' ? 0 : count);
    return typeof value === 'string' ? text : new Markup(text);
  }
  if (value instanceof Bytes) {
    budget.text(value.length * count);
    return new Bytes(Uint8Array.from({ length: value.length * count }, (_, i) => value.data[i % value.length]));
  }
  const items = Array.isArray(value) ? value : value instanceof Tuple ? value.items : null;
  if (!items) return undefined;
  budget.container(items.length * count);
  const repeated = Array.from({ length: items.length * count }, (_, i) => items[i % items.length]);
  return Array.isArray(value) ? repeated : new Tuple(repeated);
}

export function unary(operator: '-' | '+', value: Value): Value {
  if (isNumber(value)) return operator === '-' ? negate(value) : typeof value === 'boolean' ? Number(value) : value;
  if (value instanceof Undefined) return value.item();
  throw new TemplateError(`bad operand type for unary ${operator}: '${typeName(value)}'`);
}

/** a == b */
export function equals(budget: Budget, a: Value, b: Value): boolean {
  budget.spend(1);
  if (isNumber(a) && isNumber(b)) return compareNumbers(a, b) === 0;
  if (isString(a) && isString(b)) {
    const [x, y] = [textIn(a), textIn(b)];
    if (x.length !== y.length) return false;
    budget.text(x.length >>> 4);
    return x === y;
  }
  if (Array.isArray(a) && Array.isArray(b)) return areEqual(budget, a, b);
  if (a instanceof Tuple && b instanceof Tuple) return areEqual(budget, a.items, b.items);
  if (a instanceof Bytes && b instanceof Bytes) return Buffer.compare(a.data, b.data) === 0;
  if (a instanceof Undefined && b instanceof Undefined) return true;
  if (a instanceof Dict && b instanceof Dict) {
    if (a.length !== b.length) return false;
    for (const [key, value] of a.entries()) {
      const other = b.get(key);
      if (other === undefined || !equals(budget, value, other)) return false;
    }
    return true;
  }
  if (a instanceof Range && b instanceof Range) {
    const [m, n] = [a.length, b.length];
    return m === n && (m === 0 || (a.start === b.start && (m === 1 || a.step === b.step)));
  }
  if (a instanceof DictView && b instanceof DictView && a !== b) {
    throw new TemplateError(`${a.typeName} cannot be compared as in Python`);
  }
  return a === b;
}

function areEqual(budget: Budget, a: readonly Value[], b: readonly Value[]): boolean {
  return a.length === b.length && a.every((item, i) => equals(budget, item, b[i]));
}

/** Negative, 0 or positive for a < b, a == b or a > b; NaN if none of them is true. */
export function compare(budget: Budget, operator: string, a: Value, b: Value): number {
  budget.spend(1);
  if (isNumber(a) && isNumber(b)) return compareNumbers(a as Numeric, b as Numeric);
  if (isString(a) && isString(b)) {
    budget.text(Math.min(textIn(a).length, textIn(b).length) >>> 2);
    return compareCodePoints(textIn(a), textIn(b));
  }
  if (a instanceof Bytes && b instanceof Bytes) return Buffer.compare(a.data, b.data);
  const [x, y] = [a, b].map((one) => (one instanceof Tuple ? one.items : one));
  if (Array.isArray(x) && Array.isArray(y) && Array.isArray(a) === Array.isArray(b)) {
    for (let i = 0; i < Math.min(x.length, y.length); i++) {
      if (!equals(budget, x[i], y[i])) return compare(budget, operator, x[i], y[i]);
    }
    return x.length - y.length;
  }
  if (a instanceof Undefined) return a.item();
  if (b instanceof Undefined) return b.item();
  throw new TemplateError(`'${operator}' not supported between '${typeName(a)}' and '${typeName(b)}'`);
}

/** needle in value */
export function contains(budget: Budget, value: Value, needle: Value): boolean {
  if (isString(value)) {
    if (!isString(needle))
      throw new TemplateError(`'in <string>' requires string as left operand, not ${typeName(needle)}`);
    budget.text(textIn(value).length);
    return indexOf(textIn(value), textIn(needle)) >= 0;
  }
  if (value instanceof Bytes) return value.contains(needle);
  if (value instanceof Dict) return value.has(needle);
  if (value instanceof DictView && value.typeName === 'dict_keys') return value.dict.has(needle);
  const iterator = tryIterate(budget, value);
  if (!iterator) throw new TemplateError(`argument of type '${typeName(value)}' is not iterable`);
  for (let next = iterator.next(); !next.done; next = iterator.next()) {
    if (next.value === needle || equals(budget, next.value, needle)) return true;
  }
  return false;
}

/** a is b, for values of which Python has only one object. For other numbers and texts it depends on chance there. */
export function isSame(a: Value, b: Value): boolean {
  if (a instanceof Obj || Array.isArray(a) || a === null || typeof a === 'boolean') return a === b;
  return typeName(a) === typeName(b) && (isNumber(a) ? compareNumbers(a, b as Numeric) === 0 : a === b);
}

/** The values of an iterable for exactly `count` targets. */
export function unpack(budget: Budget, value: Value, count: number): Value[] {
  const items: Value[] = [];
  const iterator = iterate(budget, value);
  for (let next = iterator.next(); !next.done; next = iterator.next()) {
    if (items.length === count) throw new TemplateError(`too many values to unpack (expected ${count})`);
    items.push(next.value);
  }
  if (items.length < count)
    throw new TemplateError(`not enough values to unpack (expected ${count}, got ${items.length})`);
  return items;
}
