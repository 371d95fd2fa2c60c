// The methods of Python's str, for texts and Markup.
import type { Budget } from './budget.ts';
import { encode } from './bytes.ts';
import {
  capitalize,
  isPrintable,
  lengthOf,
  linesOf,
  pointsOf,
  SPACE,
  sliceOf,
  strip,
  titleCase,
  toPoints,
  words,
} from './characters.ts';
import { Dict } from './dict.ts';
import { TemplateError } from './errors.ts';
import { like, textFor } from './html.ts';
import { toIndex } from './numbers.ts';
import { count, indexOf, lastIndexOf, split } from './search.ts';
import type { Builtins, Methods, Parameters } from './signature.ts';
import {
  isInt,
  isString,
  isTrue,
  iterate,
  lengthOrNull,
  type Markup,
  Tuple,
  textIn,
  typeName,
  type Value,
} from './values.ts';

type Self = string | Markup;
/** @param text the characters of self, already charged to the budget */
type Run = (budget: Budget, text: string, args: (Value | undefined)[], self: Self) => Value;

const methods = new Map<string, Builtins<Budget>>();

function method(name: string, parameters: Parameters, run: Run): void {
  methods.set(name, {
    parameters,
    run(budget, self, ...args) {
      const text = textIn(self as Self);
      budget.text(text.length);
      return run(budget, text, args, self as Self);
    },
  });
}

/** A method that returns a text of the same kind. */
function mapping(
  name: string,
  parameters: Parameters,
  run: (text: string, args: (Value | undefined)[], self: Self, budget: Budget) => string,
) {
  method(name, parameters, (budget, text, args, self) => like(self, run(text, args, self, budget)));
}

/** A method that returns whether something is true of all characters, of which there must be at least one. */
function predicate(name: string, pattern: RegExp): void {
  method(name, [], (_, text) => pattern.test(text));
}

export const STR_METHODS: Methods = methods;

/** An argument that must be a text. */
function textArgument(self: Self, value: Value | undefined, name: string): string {
  if (value !== undefined && isString(value)) return textFor(self, value);
  throw new TemplateError(`${name}() argument must be str, not ${typeName(value ?? null)}`);
}

const isAbsent = (value: Value | undefined): value is null | undefined => value === undefined || value === null;

/** The argument as a limit; -1 means no limit. */
function limitOf(value: Value | undefined): number {
  const limit = value === undefined ? -1 : toIndex(value, 'a count');
  return limit < 0 ? Number.POSITIVE_INFINITY : limit;
}

method('encode', ['encoding?', 'errors?'], (_, text, [encoding = 'utf-8', errors = 'strict']) => {
  if (isString(encoding) && isString(errors)) return encode(text, textIn(encoding), textIn(errors));
  throw new TemplateError('the arguments of encode() must be texts');
});
mapping('lower', [], (text) => text.toLowerCase());
mapping('upper', [], (text) => text.toUpperCase());
mapping('casefold', [], (text) => text.replace(/[ßẞ]/g, 'ss').toLowerCase().replaceAll('ς', 'σ'));
mapping('capitalize', [], capitalize);
mapping('swapcase', [], (text) =>
  pointsOf(text)
    .map((one) => (/\p{Lowercase}/u.test(one) ? one.toUpperCase() : /\p{Lt}/u.test(one) ? one : one.toLowerCase()))
    .join(''),
);
mapping('title', [], (text) => {
  let isInWord = false;
  let titled = '';
  for (const one of text) {
    titled += isInWord ? one.toLowerCase() : titleCase(one);
    isInWord = /[\p{Lowercase}\p{Uppercase}\p{Lt}]/u.test(one);
  }
  return titled;
});

for (const [name, sides] of [
  ['strip', {}],
  ['lstrip', { right: false }],
  ['rstrip', { left: false }],
] as const) {
  mapping(name, ['/chars?'], (text, [chars], self) =>
    strip(text, isAbsent(chars) ? null : textArgument(self, chars, name), sides),
  );
}
mapping('removeprefix', ['/prefix'], (text, [prefix], self) => {
  const start = textArgument(self, prefix, 'removeprefix');
  return text.startsWith(start) ? text.slice(start.length) : text;
});
mapping('removesuffix', ['/suffix'], (text, [suffix], self) => {
  const end = textArgument(self, suffix, 'removesuffix');
  return end !== '' && text.endsWith(end) ? text.slice(0, -end.length) : text;
});

mapping('replace', ['/old', '/new', '/count?'], (text, [old, by, count], self, budget) =>
  replace(budget, text, textArgument(self, old, 'replace'), textArgument(self, by, 'replace'), limitOf(count)),
);

export function replace(budget: Budget, text: string, old: string, by: string, limit: number): string {
  if (old !== '') {
    const parts = split(text, old, limit);
    budget.text((parts.length - 1) * by.length);
    return parts.join(by);
  }
  const points = pointsOf(text);
  const places = Math.min(points.length + 1, limit);
  budget.text(places * by.length);
  return points.map((one, i) => (i < places ? by + one : one)).join('') + (places > points.length ? by : '');
}

method('split', ['sep?', 'maxsplit?'], (budget, text, [separator, maxsplit], self) => {
  const limit = limitOf(maxsplit);
  if (isAbsent(separator)) return textList(budget, self, words(text, limit));
  const by = separatorOf(self, separator, 'split');
  return textList(budget, self, split(text, by, limit));
});
method('rsplit', ['sep?', 'maxsplit?'], (budget, text, [separator, maxsplit], self) => {
  const limit = limitOf(maxsplit);
  if (isAbsent(separator)) {
    const backwards = (one: string) => pointsOf(one).reverse().join('');
    return textList(budget, self, words(backwards(text), limit).map(backwards).reverse());
  }
  const by = separatorOf(self, separator, 'rsplit');
  const backwards = (one: string) => one.split('').reverse().join('');
  const parts = split(backwards(text), backwards(by), limit).map(backwards);
  return textList(budget, self, parts.reverse());
});
method('splitlines', ['keepends?'], (budget, text, [keepEnds], self) =>
  textList(budget, self, linesOf(text, isTrue(keepEnds ?? false))),
);
for (const name of ['partition', 'rpartition'] as const) {
  method(name, ['/sep'], (_, text, [separator], self) => {
    const by = separatorOf(self, separator, name);
    const at = name === 'partition' ? indexOf(text, by) : lastIndexOf(text, by);
    const none = name === 'partition' ? [text, '', ''] : ['', '', text];
    const parts = at < 0 ? none : [text.slice(0, at), by, text.slice(at + by.length)];
    return new Tuple(parts.map((part) => like(self, part)));
  });
}

function separatorOf(self: Self, value: Value | undefined, name: string): string {
  const separator = textArgument(self, value, name);
  if (separator === '') throw new TemplateError('empty separator');
  return separator;
}

function textList(budget: Budget, self: Self, parts: string[]): Value[] {
  budget.container(parts.length);
  return parts.map((part) => like(self, part));
}

method('join', ['/iterable'], (budget, text, [iterable], self) => {
  const parts: string[] = [];
  const iterator = iterate(budget, iterable!);
  for (let next = iterator.next(); !next.done; next = iterator.next()) {
    if (!isString(next.value)) {
      throw new TemplateError(`sequence item ${parts.length}: expected str instance, ${typeName(next.value)} found`);
    }
    parts.push(textFor(self, next.value));
    budget.text(parts.at(-1)!.length + text.length);
  }
  return like(self, parts.join(text));
});

/** find() and similar methods. @returns an index in code points */
function search(name: string, isLast: boolean, isStrict: boolean): void {
  method(name, ['/sub', '/start?', '/end?'], (_, text, [sub, start, end], self) => {
    const wanted = textArgument(self, sub, name);
    const [begin, part] = partOf(text, start, end);
    const at = part === null ? -1 : isLast ? lastIndexOf(part, wanted) : indexOf(part, wanted);
    if (at < 0 && isStrict) throw new TemplateError('substring not found');
    return at < 0 ? -1 : begin + toPoints(part!, at);
  });
}
search('find', false, false);
search('rfind', true, false);
search('index', false, true);
search('rindex', true, true);

/** text[start:end] and where it begins; null if that is beyond the text. */
function partOf(text: string, start: Value | undefined, end: Value | undefined): [number, string | null] {
  if (isAbsent(start) && isAbsent(end)) return [0, text];
  const length = lengthOf(text);
  const bound = (value: Value | undefined, otherwise: number) => {
    if (isAbsent(value)) return otherwise;
    const index = toIndex(value, 'a slice index');
    return index < 0 ? Math.max(0, index + length) : index;
  };
  const [from, to] = [bound(start, 0), Math.min(bound(end, length), length)];
  return [from, from > length || from > to ? null : sliceOf(text, from, to)];
}

method('count', ['/sub', '/start?', '/end?'], (_, text, [sub, start, end], self) => {
  const wanted = textArgument(self, sub, 'count');
  const [, part] = partOf(text, start, end);
  if (part === null) return 0;
  return wanted === '' ? lengthOf(part) + 1 : count(part, wanted);
});
for (const name of ['startswith', 'endswith'] as const) {
  method(name, ['/prefix', '/start?', '/end?'], (_, text, [wanted, start, end], self) => {
    const [, part] = partOf(text, start, end);
    const all = wanted instanceof Tuple ? wanted.items : [wanted];
    const test = name === 'startswith' ? 'startsWith' : 'endsWith';
    return all.some((one) => {
      const sought = textArgument(self, one, name);
      return part?.[test](sought) ?? false;
    });
  });
}

/** ljust() and similar methods. */
function pad(name: string, leftOf: (missing: number, width: number) => number): void {
  mapping(name, ['/width', '/fillchar?'], (text, [width, fill], self, budget) => {
    const by = fill === undefined ? ' ' : textArgument(self, fill, name);
    if (lengthOf(by) !== 1) throw new TemplateError('The fill character must be exactly one character long');
    return padded(budget, text, toIndex(width!, 'a width'), by, leftOf);
  });
}

function padded(
  budget: Budget,
  text: string,
  width: number,
  by: string,
  leftOf: (missing: number, width: number) => number,
): string {
  const missing = Math.max(0, width - lengthOf(text));
  budget.text(missing);
  const left = leftOf(missing, width);
  return by.repeat(left) + text + by.repeat(missing - left);
}

const centered = (missing: number, width: number) => (missing >> 1) + (missing & width & 1);
export const center = (budget: Budget, text: string, width: number) => padded(budget, text, width, ' ', centered);

pad('ljust', () => 0);
pad('rjust', (missing) => missing);
pad('center', centered);
mapping('zfill', ['/width'], (text, [width], _, budget) => {
  const missing = Math.max(0, toIndex(width!, 'a width') - lengthOf(text));
  budget.text(missing);
  const sign = /^[+-]/.exec(text)?.[0] ?? '';
  return sign + '0'.repeat(missing) + text.slice(sign.length);
});
mapping('expandtabs', ['tabsize?'], (text, [tabsize], _, budget) => {
  const size = Math.max(0, tabsize === undefined ? 8 : toIndex(tabsize, 'a size'));
  let column = 0;
  let expanded = '';
  for (const one of text) {
    const blanks = one === '\t' && size > 0 ? size - (column % size) : 0;
    budget.text(blanks);
    if (one === '\n' || one === '\r') column = 0;
    else column += one === '\t' ? blanks : 1;
    expanded += one === '\t' ? ' '.repeat(blanks) : one;
  }
  return expanded;
});

predicate('isalpha', /^\p{L}+$/u);
predicate('isdecimal', /^\p{Nd}+$/u);
const DIGIT =
  '\\p{Nd}\\xb2\\xb3\\xb9\\u2070\\u2074-\\u2079\\u2080-\\u2089\\u2460-\\u2468\\u2474-\\u247c\\u2488-\\u2490';
predicate('isdigit', new RegExp(`^[${DIGIT}]+$`, 'u'));
const NUMERAL = '\\p{N}〇一二三四五六七八九十百千万億兆零壹貳參肆伍陸柒捌玖拾';
predicate('isnumeric', new RegExp(`^[${NUMERAL}]+$`, 'u'));
predicate('isalnum', new RegExp(`^[\\p{L}${NUMERAL}]+$`, 'u'));
predicate('isspace', new RegExp(`^[${SPACE}]+$`));
predicate('isidentifier', /^[\p{XIDS}_][\p{XIDC}]*$/u);
method('isascii', [], (_, text) => !/[^\0-\x7f]/.test(text));
method('isprintable', [], (_, text) => isPrintable(text));
export const isLower = (text: string) => /\p{Lowercase}/u.test(text) && !/[\p{Uppercase}\p{Lt}]/u.test(text);
export const isUpper = (text: string) => /\p{Uppercase}/u.test(text) && !/[\p{Lowercase}\p{Lt}]/u.test(text);
method('islower', [], (_, text) => isLower(text));
method('isupper', [], (_, text) => isUpper(text));
method('istitle', [], (_, text) => {
  let isInWord = false;
  let hasWord = false;
  for (const one of text) {
    const isBig = /[\p{Uppercase}\p{Lt}]/u.test(one);
    if (isBig ? isInWord : /\p{Lowercase}/u.test(one) && !isInWord) return false;
    isInWord = isBig || /\p{Lowercase}/u.test(one);
    hasWord ||= isInWord;
  }
  return hasWord;
});

method('translate', ['/table'], (budget, text, [table], self) => {
  if (!(table instanceof Dict)) throw new TemplateError('translate() takes a dict');
  const parts = pointsOf(text).map((one) => {
    const by = table.get(one.codePointAt(0)!);
    if (by === undefined) return one;
    if (by === null) return '';
    if (isInt(by)) return String.fromCodePoint(Number(by));
    return textArgument(self, by, 'translate');
  });
  const translated = parts.join('');
  budget.text(translated.length);
  return like(self, translated);
});
method('maketrans', ['/x', '/y?', '/z?'], (_, __, [x, y, z]) => {
  if (y === undefined && x instanceof Dict) {
    return new Dict([...x.entries()].map(([key, value]) => [isString(key) ? textIn(key).codePointAt(0)! : key, value]));
  }
  if (isAbsent(x) || isAbsent(y) || !isString(x) || !isString(y) || lengthOf(textIn(x)) !== lengthOf(textIn(y))) {
    throw new TemplateError('the first two maketrans arguments must be texts of equal length');
  }
  const to = pointsOf(textIn(y));
  const table = new Dict(pointsOf(textIn(x)).map((one, i) => [one.codePointAt(0)!, to[i].codePointAt(0)!]));
  if (z !== undefined && isString(z)) for (const one of textIn(z)) table.set(one.codePointAt(0)!, null);
  return table;
});

/** len(): of a text in code points, or of anything else that has a length. */
export function length(budget: Budget, value: Value): number {
  if (isString(value)) {
    budget.text(textIn(value).length >>> 1);
    return lengthOf(textIn(value));
  }
  const counted = lengthOrNull(value);
  if (counted === null) throw new TemplateError(`object of type '${typeName(value)}' has no len()`);
  return counted;
}
