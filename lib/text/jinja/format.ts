// Python's str.format() and its format specifications.
import type { Budget } from './budget.ts';
import { escapeOf, isPrintable, lengthOf, sliceOf } from './characters.ts';
import { TemplateError } from './errors.ts';
import { checkPrecision, formatFloating, group } from './format_number.ts';
import { escapeText, like } from './html.ts';
import { type Numeric, toFloat } from './numbers.ts';
import { repr, str } from './to_text.ts';
import { type Arguments, isInt, isNumber, isString, Markup, textIn, typeName, type Value } from './values.ts';

/** How fields such as {0.name[key]} look up values. */
export interface Lookup {
  getAttribute(budget: Budget, object: Value, name: string): Value;
  getItem(budget: Budget, object: Value, key: Value): Value;
}

/** text.format(…); for Markup it escapes the values. */
export function format(budget: Budget, text: string | Markup, args: Arguments, lookup: Lookup): string | Markup {
  return like(text, new Formatter(budget, args, lookup, text instanceof Markup).format(textIn(text), 2));
}

class Formatter {
  readonly #budget: Budget;
  readonly #args: Arguments;
  readonly #lookup: Lookup;
  readonly #isEscaping: boolean;
  /** The index of the next field without a name; null once a field had a number. */
  #next: number | null = 0;

  constructor(budget: Budget, args: Arguments, lookup: Lookup, isEscaping: boolean) {
    this.#budget = budget;
    this.#args = args;
    this.#lookup = lookup;
    this.#isEscaping = isEscaping;
  }

  /** @param depth remaining levels of fields within format specifications */
  format(text: string, depth: number): string {
    if (depth === 0) throw new TemplateError('Max string recursion exceeded');
    this.#budget.text(text.length);
    let formatted = '';
    for (let at = 0; at < text.length; at++) {
      const one = text[at];
      if ((one === '{' || one === '}') && text[at + 1] === one) at += 1;
      else if (one === '}') throw new TemplateError("Single '}' encountered in format string");
      else if (one === '{') {
        const end = endOfField(text, at);
        formatted += this.#field(text.slice(at + 1, end), depth);
        at = end;
        continue;
      }
      formatted += one;
    }
    return formatted;
  }

  #field(field: string, depth: number): string {
    const [, name, conversion, spec = ''] = /^((?:\[[^\]]*\]|[^[:!])*)(?:!([^:]*))?(?::([\s\S]*))?$/.exec(field) ?? [];
    if (name === undefined) throw new TemplateError('a field of a format string is not well formed');
    let value = this.#value(name);
    if (conversion === 'r') value = repr(this.#budget, value);
    else if (conversion === 's') value = str(this.#budget, value);
    else if (conversion === 'a') value = repr(this.#budget, value).replace(/[^\0-\x7f]/gu, escapeOf);
    else if (conversion !== undefined) throw new TemplateError(`Unknown conversion specifier ${conversion}`);
    const formatted = this.#formatted(value, spec === '' ? '' : this.format(spec, depth - 1));
    this.#budget.text(formatted.length);
    return formatted;
  }

  #formatted(value: Value, spec: string): string {
    if (!this.#isEscaping) return formatValue(this.#budget, value, spec);
    if (value instanceof Markup && spec !== '') throw new TemplateError('Unsupported format specification for Markup.');
    return value instanceof Markup ? value.text : escapeText(formatValue(this.#budget, value, spec));
  }

  #value(name: string): Value {
    const [first] = /^[^.[]*/.exec(name)!;
    let value: Value | undefined;
    if (first === '' || /^\d+$/.test(first)) {
      if (first !== '' && this.#next !== null && this.#next > 0) {
        throw new TemplateError('cannot switch from automatic field numbering to manual field specification');
      }
      if (first === '' && this.#next === null) {
        throw new TemplateError('cannot switch from manual field specification to automatic field numbering');
      }
      const index = first === '' ? this.#next! : Number(first);
      this.#next = first === '' ? index + 1 : null;
      value = this.#args.positional[index];
      if (value === undefined)
        throw new TemplateError(`Replacement index ${index} out of range for positional args tuple`);
    } else {
      value = this.#args.named.get(first);
      if (value === undefined) throw new TemplateError(`KeyError: '${first}'`);
    }
    for (const [, attribute, key] of name.slice(first.length).matchAll(/\.([^.[]+)|\[([^\]]+)\]/g)) {
      if (attribute !== undefined) value = this.#lookup.getAttribute(this.#budget, value, attribute);
      else value = this.#lookup.getItem(this.#budget, value, /^\d+$/.test(key) ? Number(key) : key);
    }
    return value;
  }
}

function endOfField(text: string, begin: number): number {
  let depth = 0;
  for (let at = begin; at < text.length; at++) {
    if (text[at] === '{') depth += 1;
    else if (text[at] === '}') {
      depth -= 1;
      if (depth === 0) return at;
    }
  }
  throw new TemplateError("expected '}' before end of string");
}

const SPEC = /^(?:(.)?([<>=^]))?([+\- ])?(z)?(#)?(0)?(\d+)?([,_])?(?:\.(\d+))?([a-zA-Z%])?$/su;

interface Spec {
  fill: string;
  align: string;
  sign: string;
  hasSign: boolean;
  /** Whether a value that rounds to zero keeps its minus. */
  hasMinusZero: boolean;
  isAlternate: boolean;
  width: number;
  separator: string;
  precision: number | null;
  type: string;
}

/** format(value, spec) */
function formatValue(budget: Budget, value: Value, text: string): string {
  if (text === '') return str(budget, value);
  const match = SPEC.exec(text);
  if (!match) throw new TemplateError(`Invalid format specifier '${text}'`);
  const [, fill, align, sign, noMinusZero, alternate, zero, width, separator = '', precision, type = ''] = match;
  const spec: Spec = {
    fill: fill ?? (zero && !align ? '0' : (zero ?? ' ')),
    align: align ?? (zero ? '=' : ''),
    sign: sign ?? '-',
    hasSign: sign !== undefined,
    hasMinusZero: noMinusZero === undefined,
    isAlternate: alternate !== undefined,
    width: Number(width ?? 0),
    separator,
    precision: precision === undefined ? null : checkPrecision(Number(precision)),
    type,
  };
  budget.text(spec.width);
  if (isString(value)) return formatText(textIn(value), spec, zero !== undefined && !align);
  if (!isNumber(value)) throw new TemplateError(`unsupported format string passed to ${typeName(value)}.__format__`);
  return formatNumeric(value, spec);
}

function formatText(text: string, spec: Spec, hasZero: boolean): string {
  if (spec.type !== '' && spec.type !== 's')
    throw new TemplateError(`Unknown format code '${spec.type}' for object of type 'str'`);
  const align = hasZero ? '<' : spec.align;
  if (spec.hasSign || !spec.hasMinusZero || spec.isAlternate || spec.separator || align === '=')
    throw new TemplateError('a format for numbers is given for a str');
  return aligned(spec.precision === null ? text : sliceOf(text, 0, spec.precision), { ...spec, align: align || '<' });
}

function aligned(text: string, { fill, align, width }: Spec): string {
  const missing = Math.max(0, width - lengthOf(text));
  const left = align === '<' ? 0 : align === '^' ? missing >> 1 : missing;
  return fill.repeat(left) + text + fill.repeat(missing - left);
}

function formatNumeric(value: Numeric, spec: Spec): string {
  if (typeof value === 'boolean' && spec.type === '') return formatNumeric(Number(value), { ...spec, type: 'd' });
  const isWhole = typeof value === 'boolean' || isInt(value);
  if (spec.separator && (spec.separator === ',' ? 'bcnoxX' : 'cn').includes(spec.type || ' ')) {
    throw new TemplateError(`Cannot specify '${spec.separator}' with '${spec.type}'.`);
  }
  if (
    isWhole &&
    spec.type === 'c' &&
    (spec.hasSign || spec.isAlternate || spec.precision !== null || !spec.hasMinusZero)
  )
    throw new TemplateError("format specifier 'c' allows only a width");
  if (isWhole && spec.type === 'c')
    return aligned(String.fromCodePoint(Number(value)), { ...spec, align: spec.align || '<' });
  const body = isWhole && 'bdoxXn'.includes(spec.type) ? wholeDigits(value, spec) : floatDigits(value, spec);
  const isZero = !/[1-9]/.test(body.replace(/e.*/i, ''));
  const isNegative = Number(value) < 0 || (!isWhole && Object.is(Number(value), -0));
  const sign = isNegative && (spec.hasMinusZero || !isZero) ? '-' : spec.sign === '-' ? '' : spec.sign;
  const size = 'boxX'.includes(spec.type || ' ') ? 4 : 3;
  const prefix = spec.isAlternate && isWhole && 'boxX'.includes(spec.type || ' ') ? `0${spec.type}` : '';
  const grouped = (digits: string) => (spec.separator ? group(digits, spec.separator, size) : digits);
  if (spec.align !== '=') return aligned(sign + prefix + grouped(body), { ...spec, align: spec.align || '>' });
  const whole = (isWhole ? /^\w*/ : /^\d*/).exec(body)![0].length;
  // Padding zeros are grouped with the digits.
  const columns = spec.width - sign.length - prefix.length;
  if (spec.fill === '0' && spec.separator) {
    const lengthWith = (count: number) => count + Math.floor((count - 1) / size) + body.length - whole;
    let count = Math.max(whole, columns - Math.ceil(columns / (size + 1)) - (body.length - whole));
    while (lengthWith(count) < columns) count += 1;
    return sign + prefix + grouped('0'.repeat(count - whole) + body);
  }
  return sign + prefix + spec.fill.repeat(Math.max(0, columns - grouped(body).length)) + grouped(body);
}

function wholeDigits(value: Numeric, { type, precision, hasMinusZero }: Spec): string {
  if (precision !== null || !hasMinusZero)
    throw new TemplateError('Precision or z not allowed in integer format specifier');
  const whole = typeof value === 'bigint' ? value : BigInt(Number(value));
  const base = { b: 2, o: 8, x: 16, X: 16 }[type] ?? 10;
  const digits = (whole < 0n ? -whole : whole).toString(base);
  return type === 'X' ? digits.toUpperCase() : digits;
}

function floatDigits(value: Numeric, { type, precision, isAlternate }: Spec): string {
  const size = Math.abs(toFloat(value));
  if (type === '%') return `${formatFloating(size * 100, 'f', precision, isAlternate)}%`;
  if (type !== '' && !'eEfFgGn'.includes(type)) {
    throw new TemplateError(
      `Unknown format code '${isPrintable(type) ? type : '?'}' for object of type '${typeName(value as Value)}'`,
    );
  }
  return formatFloating(size, type === 'n' ? 'g' : type, precision, isAlternate);
}
