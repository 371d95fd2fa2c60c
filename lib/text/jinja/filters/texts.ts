// Filters of texts.
import type { Budget } from '../budget.ts';
import { capitalize, headOf, lengthOf, linesOf, SPACE, sliceOf, strip, words } from '../characters.ts';
import { Dict } from '../dict.ts';
import { TemplateError } from '../errors.ts';
import { like, toMarkup } from '../html.ts';
import { parseFloating, toFloat, toIndex } from '../numbers.ts';
import { operate, unpack } from '../operators.ts';
import { percentFormat } from '../percent_format.ts';
import { center, length as lengthIn, replace } from '../str_methods.ts';
import { str } from '../to_text.ts';
import {
  isNumber,
  isString,
  isTrue,
  iterate,
  listOf,
  Markup,
  Obj,
  Tuple,
  textIn,
  typeName,
  Undefined,
  type Value,
} from '../values.ts';
import { type Filter, filter } from './define.ts';

/** A text, or what becomes one. Markup stays Markup. */
const softText = (budget: Budget, value: Value): string | Markup => (isString(value) ? value : str(budget, value));

/** A filter that maps a text to a text of its kind. */
function mapping(name: string, run: (text: string) => string): [string, Filter] {
  return filter(name, [], (budget, value) => {
    const text = softText(budget, value);
    budget.text(textIn(text).length);
    return like(text, run(textIn(text)));
  });
}

function titled(text: string): string {
  return text
    .split(new RegExp(`([-${SPACE}({[<]+)`))
    .map((part) => {
      const [head, rest] = headOf(part);
      return head.toUpperCase() + rest.toLowerCase();
    })
    .join('');
}

function trimmed(budget: Budget, value: Value, chars: Value | undefined): Value {
  const text = softText(budget, value);
  budget.text(textIn(text).length);
  if (chars === undefined || chars === null) return like(text, strip(textIn(text), null));
  if (!isString(chars)) throw new TemplateError(`strip arg must be None or str, not ${typeName(chars)}`);
  return like(text, strip(textIn(text), textIn(chars)));
}

function indented(budget: Budget, value: Value, width: Value = 4, first: Value = false, blank: Value = false): Value {
  const indent = isString(width) ? textIn(width) : ' '.repeat(widthOf(budget, width));
  // Lines end where a line end is added: what is no text fails at that.
  const lines = linesOf(textIn(operate(budget, '+', value, '\n') as string));
  budget.text(lines.length * indent.length + textIn(value as string).length);
  const rest = lines.slice(1).map((line) => (line === '' && !isTrue(blank) ? line : indent + line));
  return like(value, (isTrue(first) ? indent : '') + [lines[0], ...rest].join('\n'));
}

function widthOf(budget: Budget, width: Value): number {
  const columns = Math.max(0, toIndex(width, 'a width'));
  budget.text(columns);
  return columns;
}

function truncated(
  budget: Budget,
  value: Value,
  length: Value = 255,
  killWords: Value = false,
  end: Value = '...',
  leeway: Value = 5,
): Value {
  if (!isString(end)) throw new TemplateError(`truncate: the end is no str but a ${typeName(end)}`);
  const size = toIndex(length, 'a length');
  const slack = leeway === null ? 5 : toIndex(leeway, 'leeway');
  const room = size - lengthOf(textIn(end));
  if (room < 0) throw new TemplateError(`expected length >= ${lengthOf(textIn(end))}, got ${size}`);
  if (slack < 0) throw new TemplateError(`expected leeway >= 0, got ${slack}`);
  if (lengthIn(budget, value) <= size + slack) return value;
  if (!isString(value)) throw new TemplateError(`truncate: '${typeName(value)}' is no str`);
  const text = textIn(value);
  const cut = sliceOf(text, 0, room);
  const space = isTrue(killWords) ? -1 : cut.lastIndexOf(' ');
  return operate(budget, '+', like(value, space < 0 ? cut : cut.slice(0, space)), end);
}

function joined(
  budget: Budget,
  value: Value,
  separator: Value = '',
  attribute: Value | undefined,
  get: (item: Value) => Value,
): Value {
  const by = str(budget, separator);
  const parts: string[] = [];
  const iterator = iterate(budget, value);
  for (let next = iterator.next(); !next.done; next = iterator.next()) {
    const text = str(budget, attribute === undefined || attribute === null ? next.value : get(next.value));
    budget.text(text.length + by.length);
    parts.push(text);
  }
  return parts.join(by);
}

/** The filter join, with how it reads an attribute. */
export const joinFilter = (getter: (budget: Budget, attribute: Value) => (item: Value) => Value): [string, Filter] =>
  filter('join', ['d?', 'attribute?'], (budget, value, separator, attribute) =>
    joined(budget, value, separator, attribute, getter(budget, attribute ?? null)),
  );

function fileSize(budget: Budget, value: Value, binary: Value = false): Value {
  const bytes = isNumber(value) ? toFloat(value) : isString(value) ? parseFloating(strip(textIn(value), null)) : null;
  if (bytes === null) throw new TemplateError('filesizeformat takes a number');
  const base = isTrue(binary) ? 1024 : 1000;
  if (bytes === 1) return '1 Byte';
  if (bytes < base) return `${Math.trunc(bytes)} Bytes`;
  const units = ['k', 'M', 'G', 'T', 'P', 'E', 'Z', 'Y'];
  const power = Math.max(
    0,
    units.findIndex((_, i) => i === units.length - 1 || bytes < base ** (i + 2)),
  );
  const prefix = isTrue(binary) ? `${units[power].toUpperCase()}i` : units[power];
  return percentFormat(budget, `%.1f ${prefix}B`, (base * bytes) / base ** (power + 2));
}

function urlQuoted(text: string, isQuery: boolean): string {
  const quoted = encodeURIComponent(text).replace(
    /[!'()*]/g,
    (one) => `%${one.charCodeAt(0).toString(16).toUpperCase()}`,
  );
  return isQuery ? quoted.replaceAll('%20', '+') : quoted.replaceAll('%2F', '/');
}

function urlEncoded(budget: Budget, value: Value): Value {
  const isPlain = isString(value) || (!Array.isArray(value) && !(value instanceof Obj));
  const quoted = (one: Value, isQuery: boolean) => {
    const text = str(budget, one);
    budget.text(3 * text.length);
    return urlQuoted(text, isQuery);
  };
  if (isPlain) return quoted(value, false);
  const pairs =
    value instanceof Dict ? [...value.entries()] : listOf(budget, value).map((pair) => unpack(budget, pair, 2));
  return pairs.map(([key, one]) => `${quoted(key, true)}=${quoted(one, true)}`).join('&');
}

function xmlAttributes(budget: Budget, value: Value, autospace: Value = true): Value {
  if (!(value instanceof Dict)) throw new TemplateError('xmlattr takes a mapping');
  const parts: string[] = [];
  for (const [key, one] of value.entries()) {
    if (one === null || one instanceof Undefined) continue;
    if (!isString(key) || /[\s/>=]/.test(textIn(key))) throw new TemplateError('Invalid character in attribute name');
    parts.push(`${toMarkup(key).text}="${toMarkup(softText(budget, one)).text}"`);
  }
  const text = parts.join(' ');
  budget.text(text.length);
  return isTrue(autospace) && text !== '' ? ` ${text}` : text;
}

function stripTags(budget: Budget, value: Value): Value {
  const text = str(budget, value);
  budget.text(text.length * 2);
  const bare = without(without(text, '<!--', '-->'), '<', '>');
  if (bare.includes('&')) throw new TemplateError('striptags of a text with entities');
  return words(bare).join(' ');
}

/** A text without what stands between `open` and `close`, and without these. */
function without(text: string, open: string, close: string): string {
  let kept = '';
  let at = 0;
  for (;;) {
    const begin = text.indexOf(open, at);
    const end = begin < 0 ? -1 : text.indexOf(close, begin + open.length);
    if (end < 0) return kept + text.slice(at);
    kept += text.slice(at, begin);
    at = end + close.length;
  }
}

export const TEXT_FILTERS: [string, Filter][] = [
  mapping('upper', (text) => text.toUpperCase()),
  mapping('lower', (text) => text.toLowerCase()),
  mapping('capitalize', capitalize),
  filter('title', [], (budget, value) => {
    const text = textIn(softText(budget, value));
    budget.text(text.length);
    return titled(text);
  }),
  filter('trim', ['chars?'], trimmed),
  filter('indent', ['width?', 'first?', 'blank?'], indented),
  filter('truncate', ['length?', 'killwords?', 'end?', 'leeway?'], truncated),
  filter('replace', ['old', 'new', 'count?'], (budget, value, old, by, count) => {
    const limit = count === undefined || count === null ? -1 : toIndex(count, 'a count');
    const text = str(budget, value);
    budget.text(text.length);
    return replace(budget, text, str(budget, old!), str(budget, by!), limit < 0 ? Number.POSITIVE_INFINITY : limit);
  }),
  filter('center', ['width?'], (budget, value, width = 80) => {
    const text = softText(budget, value);
    budget.text(textIn(text).length);
    return like(text, center(budget, textIn(text), toIndex(width, 'a width')));
  }),
  filter('string', [], softText),
  filter('wordcount', [], (budget, value) => {
    const text = textIn(softText(budget, value));
    budget.text(text.length);
    return text.match(/[\p{L}\p{N}_]+/gu)?.length ?? 0;
  }),
  [
    'format',
    (budget, value, { positional, named }) => {
      if (positional.length > 0 && named.size > 0) {
        throw new TemplateError("can't handle positional and keyword arguments at the same time");
      }
      return percentFormat(budget, softText(budget, value), named.size > 0 ? new Dict(named) : new Tuple(positional));
    },
  ],
  filter('filesizeformat', ['binary?'], fileSize),
  filter('urlencode', [], urlEncoded),
  filter('xmlattr', ['autospace?'], xmlAttributes),
  filter('striptags', [], stripTags),
  ...['escape', 'e'].map((name) => filter(name, [], (budget, value) => toMarkup(softText(budget, value)))),
  filter('forceescape', [], (budget, value) => toMarkup(str(budget, value))),
  filter('safe', [], (budget, value) => new Markup(str(budget, value))),
];
