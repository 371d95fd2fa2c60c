// Python's arithmetic: ints of any size, floats, and bools as 0 and 1.
import type { Float } from '../json.ts';
import type { Budget } from './budget.ts';
import { strip } from './characters.ts';
import { TemplateError } from './errors.ts';
import { float, int, isFloat, type Value } from './values.ts';

export type Numeric = number | bigint | boolean | Float;

/** Largest int that a power or product may make, in bits. */
const MAX_BITS = 100_000;

const bigOf = (value: Numeric): bigint => (typeof value === 'bigint' ? value : BigInt(Number(value)));

/** float(value) @throws TemplateError for an int beyond the range of floats */
export function toFloat(value: Numeric): number {
  const converted = Number(value);
  if (typeof value === 'bigint' && !Number.isFinite(converted))
    throw new TemplateError('int too large to convert to float');
  return converted;
}

export function calculate(budget: Budget, operator: string, a: Numeric, b: Numeric): Value {
  if (isFloat(a) || isFloat(b)) return float(floats(operator, toFloat(a), toFloat(b)));
  if (operator === '/') return float(divide(a, b));
  if (operator === '**') return power(budget, a, b);
  if (typeof a !== 'bigint' && typeof b !== 'bigint') {
    const result = smallInts(operator, Number(a), Number(b));
    if (Number.isSafeInteger(result)) return result === 0 ? 0 : result;
  }
  const [x, y] = [bigOf(a), bigOf(b)];
  budget.spend(Number(x.toString(16).length + y.toString(16).length) >>> 3);
  return int(bigInts(operator, x, y));
}

function smallInts(operator: string, a: number, b: number): number {
  if (operator === '+') return a + b;
  if (operator === '-') return a - b;
  if (operator === '*') return a * b;
  if (b === 0) throw new TemplateError('integer division or modulo by zero');
  const rest = a % b;
  const modulo = rest !== 0 && rest < 0 !== b < 0 ? rest + b : rest;
  return operator === '%' ? modulo : (a - modulo) / b;
}

function bigInts(operator: string, a: bigint, b: bigint): bigint {
  if (operator === '+') return a + b;
  if (operator === '-') return a - b;
  if (operator === '*') return checkedProduct(a, b);
  if (b === 0n) throw new TemplateError('integer division or modulo by zero');
  const rest = a % b;
  const modulo = rest !== 0n && rest < 0n !== b < 0n ? rest + b : rest;
  return operator === '%' ? modulo : (a - modulo) / b;
}

function checkedProduct(a: bigint, b: bigint): bigint {
  if ((a.toString(16).length + b.toString(16).length) * 4 > MAX_BITS) throw new TemplateError('makes too large an int');
  return a * b;
}

function floats(operator: string, a: number, b: number): number {
  if (operator === '+') return a + b;
  if (operator === '-') return a - b;
  if (operator === '*') return a * b;
  if (operator === '**') return floatPower(a, b);
  if (b === 0)
    throw new TemplateError(
      `float ${operator === '/' ? 'division' : operator === '%' ? 'modulo' : 'floor division'} by zero`,
    );
  if (operator === '/') return a / b;
  const rest = a % b;
  const modulo = rest !== 0 ? (rest < 0 !== b < 0 ? rest + b : rest) : b < 0 ? -0 : 0;
  if (operator === '%') return modulo;
  const quotient = (a - rest) / b - (modulo === rest || rest === 0 ? 0 : 1);
  if (quotient === 0) return a / b < 0 || Object.is(a / b, -0) ? -0 : 0;
  const floor = Math.floor(quotient);
  return quotient - floor > 0.5 ? floor + 1 : floor;
}

function floatPower(a: number, b: number): number {
  if (a === 1 || b === 0) return 1; // JavaScript gives NaN for 1 ** NaN and 1 ** Infinity
  if (a === -1 && !Number.isFinite(b) && !Number.isNaN(b)) return 1;
  if (a === 0 && b < 0) throw new TemplateError('0.0 cannot be raised to a negative power');
  if (a < 0 && Number.isFinite(a) && Number.isFinite(b) && !Number.isInteger(b)) {
    throw new TemplateError('a negative float to a fraction would be complex');
  }
  const result = a ** b;
  if (!Number.isFinite(result) && Number.isFinite(a) && Number.isFinite(b)) throw new TemplateError('result too large');
  return result;
}

function power(budget: Budget, a: Numeric, b: Numeric): Value {
  const [base, exponent] = [bigOf(a), bigOf(b)];
  if (exponent < 0n) return float(floatPower(toFloat(a), toFloat(b)));
  const bits = base.toString(2).length * Number(exponent);
  if (base !== 1n && base !== -1n && base !== 0n && bits > MAX_BITS) throw new TemplateError('makes too large an int');
  budget.spend(1 + (Math.min(bits, MAX_BITS) >>> 5));
  return int(base ** exponent);
}

/** The quotient of two ints, rounded once. */
function divide(a: Numeric, b: Numeric): number {
  if (bigOf(b) === 0n) throw new TemplateError('division by zero');
  if (typeof a !== 'bigint' && typeof b !== 'bigint') return Number(a) / Number(b);
  const isNegative = bigOf(a) < 0n !== bigOf(b) < 0n;
  const [x, y] = [bigOf(a), bigOf(b)].map((one) => (one < 0n ? -one : one));
  // A quotient of at least 66 bits, with one more bit that says whether there is a remainder, rounds like the exact one.
  const shift = Math.max(0, 66 - (x.toString(2).length - y.toString(2).length));
  const shifted = x << BigInt(shift);
  const quotient = (shifted / y) | (shifted % y === 0n ? 0n : 1n);
  const result = toFloat(quotient) / 2 ** shift;
  if (!Number.isFinite(result)) throw new TemplateError('integer division result too large for a float');
  return isNegative ? -result : result;
}

export function negate(value: Numeric): Value {
  if (isFloat(value)) return float(-Number(value));
  return typeof value === 'bigint' ? int(-value) : Number(value) === 0 ? 0 : -Number(value);
}

/** Negative, 0 or positive for a < b, a == b or a > b; NaN if either is NaN. */
export function compareNumbers(a: Numeric, b: Numeric): number {
  if (typeof a !== 'bigint' && typeof b !== 'bigint') {
    const [x, y] = [Number(a), Number(b)];
    return x === y ? 0 : x - y;
  }
  // JavaScript compares a bigint and a number by their exact values.
  const [x, y] = [a, b].map((one) => (typeof one === 'bigint' ? one : Number(one)));
  if (x < y) return -1;
  if (x > y) return 1;
  return Number.isNaN(x) || Number.isNaN(y) ? Number.NaN : 0;
}

/** An int that is an index or a count. @throws TemplateError if it is not an int */
export function toIndex(value: Value, what: string): number {
  if (typeof value === 'boolean') return Number(value);
  if (typeof value === 'bigint') return value > 0n ? Number.MAX_SAFE_INTEGER : Number.MIN_SAFE_INTEGER;
  if (typeof value === 'number' && Number.isInteger(value)) return value;
  throw new TemplateError(`${what} must be an int`);
}

/** Converts decimal digits of any script to ASCII. In Unicode they are in rows of ten. */
function asciiDigits(text: string): string {
  return text.replace(/(?![0-9])\p{Nd}/gu, (one) => {
    let begin = one.codePointAt(0)!;
    while (/^\p{Nd}/u.test(String.fromCodePoint(begin - 1))) begin -= 1;
    return String((one.codePointAt(0)! - begin) % 10);
  });
}

/** White space around a number; str.isspace() is true for some control characters as well. */
const NUMBER_SPACE =
  '\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000';

export const numberText = (text: string): string => strip(text, NUMBER_SPACE);

/** int(text, base); null if the text is no int. */
export function parseInteger(text: string, base = 10): number | bigint | null {
  if (base !== 0 && (base < 2 || base > 36)) return null;
  let digits = asciiDigits(text)
    .replace(/_/g, (_, at: number) => (/[\da-z]_[\da-z]/i.test(text.slice(at - 1, at + 2)) ? '' : '?'))
    .toLowerCase();
  const sign = digits.startsWith('-') ? -1n : 1n;
  digits = digits.replace(/^[+-]/, '');
  const prefixed = /^0([box])(.+)$/.exec(digits);
  const prefixBase = prefixed && { b: 2, o: 8, x: 16 }[prefixed[1]];
  if (prefixed && (base === prefixBase || base === 0)) return parseDigits(prefixed[2], prefixBase!, sign);
  if (base === 0 && /^0+[^0]/.test(digits)) return null;
  return parseDigits(digits, base || 10, sign);
}

function parseDigits(digits: string, base: number, sign: bigint): number | bigint | null {
  if (digits === '' || digits.length > 4300) return null;
  if (base === 10 && /^\d+$/.test(digits)) return int(sign * BigInt(digits));
  let value = 0n;
  for (const one of digits) {
    const digit = /[\da-z]/.test(one) ? Number.parseInt(one, 36) : base;
    if (digit >= base) return null;
    value = value * BigInt(base) + BigInt(digit);
  }
  return int(sign * value);
}

/** float(text) for a text without white space at its ends; null if it is no float. */
export function parseFloating(text: string): number | null {
  const lower = asciiDigits(text).toLowerCase();
  const word = /^([+-]?)(inf|infinity|nan)$/.exec(lower);
  if (word) return (word[1] === '-' ? -1 : 1) * (word[2] === 'nan' ? Number.NaN : Number.POSITIVE_INFINITY);
  if (!/^[+-]?(?:\d+(?:_\d+)*\.?(?:\d+(?:_\d+)*)?|\.\d+(?:_\d+)*)(?:e[+-]?\d+(?:_\d+)*)?$/.test(lower)) return null;
  return Number(lower.replaceAll('_', ''));
}
