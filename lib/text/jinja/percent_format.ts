// Python's % operator on texts.
import type { Budget } from './budget.ts';
import { Bytes } from './bytes.ts';
import { escapeOf, isPrintable, lengthOf, sliceOf } from './characters.ts';
import { Dict } from './dict.ts';
import { TemplateError } from './errors.ts';
import { checkPrecision, formatFloating } from './format_number.ts';
import { escapeText, like } from './html.ts';
import { type Numeric, numberText, parseFloating, parseInteger, toFloat } from './numbers.ts';
import { repr, str } from './to_text.ts';
import {
  float,
  isFloat,
  isInt,
  isNumber,
  isString,
  Markup,
  Range,
  Tuple,
  textIn,
  typeName,
  Undefined,
  type Value,
} from './values.ts';

const FIELD = /%(?:\(((?:[^()]|\([^()]*\))*)\))?([#0\- +]*)(\*|\d+)?(?:\.(\*|\d*))?[hlL]?([\s\S]?)/gu;

/** format % value */
export function percentFormat(budget: Budget, format: string | Markup, value: Value): Value {
  const text = textIn(format);
  budget.text(text.length);
  const fields = new Fields(budget, value, format instanceof Markup);
  const formatted = text.replace(FIELD, (all, key, flags, width, precision, type) => {
    if (all === '%%') return '%';
    const field = fields.format({ key, flags, width, precision, type });
    budget.text(field.length);
    return field;
  });
  fields.checkAllUsed();
  return like(format, formatted);
}

interface Field {
  key?: string;
  flags: string;
  width?: string;
  precision?: string;
  type: string;
}

class Fields {
  readonly #budget: Budget;
  readonly #value: Value;
  readonly #isMarkup: boolean;
  #used = 0;
  #hasKeys = false;

  constructor(budget: Budget, value: Value, isMarkup: boolean) {
    this.#budget = budget;
    this.#value = value;
    this.#isMarkup = isMarkup;
  }

  format({ key, flags, width, precision, type }: Field): string {
    if (key !== undefined) {
      this.#hasKeys = true;
      if (!(this.#value instanceof Dict)) throw new TemplateError('format requires a mapping');
    }
    let columns = this.#size(width) ?? 0;
    const isLeft = flags.includes('-') || columns < 0;
    columns = Math.abs(columns);
    const places = precision === undefined ? null : Math.max(0, this.#size(precision || '0')!);
    if (type === '') throw new TemplateError('incomplete format');
    const value = key === undefined ? this.#next() : this.#field(key);
    const [sign, body, isNumeric] = this.#converted(value, type, flags, places);
    const missing = Math.max(0, columns - lengthOf(sign + body));
    this.#budget.text(missing);
    if (isLeft) return sign + body + ' '.repeat(missing);
    if (isNumeric && flags.includes('0')) return sign + '0'.repeat(missing) + body;
    return ' '.repeat(missing) + sign + body;
  }

  /** Throws if a value is not used by any field, unless the value is a mapping. */
  checkAllUsed(): void {
    const value = this.#value;
    const isMapping = Array.isArray(value) || [Dict, Range, Undefined, Bytes].some((kind) => value instanceof kind);
    if (this.#hasKeys || (isMapping && this.#used === 0)) return;
    const count = value instanceof Tuple ? value.items.length : isMapping ? this.#used : 1;
    if (this.#used < count) throw new TemplateError('not all arguments converted during string formatting');
  }

  /** Converts a value of Markup's % for a number field: a text becomes a number as by int() or float(), and by no other way. */
  #unwrapped(value: Value, type: string): Value {
    if ('cxXo'.includes(type)) throw new TemplateError(`%${type} format of Markup: not of a ${typeName(value)}`);
    if (!isString(value)) return value;
    const text = numberText(textIn(value));
    const number = 'di'.includes(type) ? parseInteger(text) : parseFloating(text);
    if (number === null) throw new TemplateError(`%${type} format: a number is required, not a text`);
    return 'di'.includes(type) ? number : float(Number(number));
  }

  #size(text: string | undefined): number | null {
    if (text === undefined) return null;
    if (text !== '*') return Number(text);
    const value = this.#next();
    const size = typeof value === 'boolean' ? Number(value) : value;
    if (this.#isMarkup || typeof size !== 'number' || !isInt(size)) throw new TemplateError('* wants int');
    return size;
  }

  #field(key: string): Value {
    const value = (this.#value as Dict).get(key);
    if (value === undefined) throw new TemplateError(`KeyError: '${key}'`);
    return value;
  }

  #next(): Value {
    const items = this.#value instanceof Tuple ? this.#value.items : [this.#value];
    if (this.#used >= items.length) throw new TemplateError('not enough arguments for format string');
    return items[this.#used++];
  }

  #converted(
    given: Value,
    type: string,
    flags: string,
    places: number | null,
  ): [sign: string, body: string, isNumber: boolean] {
    if (type === 's' || type === 'r' || type === 'a') {
      const shown = type === 's' ? str(this.#budget, given) : repr(this.#budget, given);
      const isSafe = !this.#isMarkup || (type === 's' && given instanceof Markup);
      const escaped = isSafe ? shown : escapeText(shown);
      const text = type === 'a' ? escaped.replace(/[^\0-\x7f]/gu, escapeOf) : escaped;
      return ['', places === null ? text : sliceOf(text, 0, places), false];
    }
    const value = this.#isMarkup ? this.#unwrapped(given, type) : given;
    if (type === 'c') return ['', characterOf(value), false];
    if (!'diuxXoeEfFgG'.includes(type)) {
      const shown = isPrintable(type) ? type : escapeOf(type);
      throw new TemplateError(`unsupported format character '${shown}'`);
    }
    if (value instanceof Undefined) value.item();
    if (!isNumber(value)) throw new TemplateError(`%${type} format: a number is required, not ${typeName(value)}`);
    const isNegative = Number(value) < 0 || Object.is(Number(value), -0);
    const sign =
      isNegative && (isFloat(value) || Number(value) !== 0)
        ? '-'
        : flags.includes('+')
          ? '+'
          : flags.includes(' ')
            ? ' '
            : '';
    if ('eEfFgG'.includes(type)) {
      return [sign, formatFloating(Math.abs(toFloat(value)), type, places, flags.includes('#')), true];
    }
    const digits = wholeOf(value, type).padStart(checkPrecision(places ?? 0), '0');
    const base = flags.includes('#') ? { x: '0x', X: '0X', o: '0o' }[type] : undefined;
    return [(sign === '-' && /^0*$/.test(digits) ? '' : sign) + (base ?? ''), digits, true];
  }
}

function characterOf(value: Value): string {
  if (isString(value) && lengthOf(textIn(value)) === 1) return textIn(value);
  const code = typeof value === 'boolean' ? Number(value) : value;
  if (typeof code === 'number' && code >= 0 && code <= 0x10ffff && isInt(code)) return String.fromCodePoint(code);
  throw new TemplateError('%c requires int or char');
}

/** The digits of the whole part, without a sign. */
function wholeOf(value: Numeric, type: string): string {
  if (isFloat(value) && 'xXo'.includes(type))
    throw new TemplateError(`%${type} format: an integer is required, not float`);
  const number = Number(value);
  if (!Number.isFinite(number) && typeof value !== 'bigint')
    throw new TemplateError('cannot convert float infinity or NaN to integer');
  const whole = typeof value === 'bigint' ? value : BigInt(Math.trunc(number));
  const digits = (whole < 0n ? -whole : whole).toString(type === 'o' ? 8 : type.toLowerCase() === 'x' ? 16 : 10);
  return type === 'X' ? digits.toUpperCase() : digits;
}
