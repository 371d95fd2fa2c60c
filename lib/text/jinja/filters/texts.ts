// Filters of texts.
import { compareCodePoints } from '../../json.ts';
import type { Budget } from '../budget.ts';
import { capitalize, headOf, lengthOf, linesOf, quote, SPACE, sliceOf, strip, words } from '../characters.ts';
import { Dict } from '../dict.ts';
import { TemplateError } from '../errors.ts';
import { like, textFor, toMarkup } from '../html.ts';
import { stripTags } from '../html_text.ts';
import { numberText, parseFloating, toFloat, toIndex } from '../numbers.ts';
import { operate, unpack } from '../operators.ts';
import { percentFormat } from '../percent_format.ts';
import { center, length as lengthIn, replace } from '../str_methods.ts';
import { escaped, softText, str } from '../to_text.ts';
import { urlize } from '../urlize.ts';
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
import { wrap } from '../wrap.ts';
import { escapingFilter, type Filter, filter } from './define.ts';

/** A filter that maps a text or Markup to one of the same type. */
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
  return like(text, strip(textIn(text), textFor(text, chars)));
}

function indented(budget: Budget, value: Value, width: Value = 4, first: Value = false, blank: Value = false): Value {
  const indent = isString(width) ? textIn(width) : ' '.repeat(widthOf(budget, width));
  // Adding a line end ends the last line; it throws for what is no text.
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
  if (!isString(end)) throw new TemplateError(`truncate: the end must be a str, not ${typeName(end)}`);
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

type Getter = (item: Value) => Value;

function joined(isEscaping: boolean, budget: Budget, value: Value, separator: Value, get: Getter): Value {
  const parts: (string | Markup)[] = [];
  const iterator = iterate(budget, value);
  for (let next = iterator.next(); !next.done; next = iterator.next()) {
    parts.push(softText(budget, get(next.value)));
    budget.text(textIn(parts.at(-1)!).length);
  }
  const given = softText(budget, separator);
  const isHtml = isEscaping && [given, ...parts].some((one) => one instanceof Markup);
  const by = isHtml ? toMarkup(given) : textIn(given);
  budget.text(parts.length * textIn(by).length);
  return like(by, parts.map((part) => textFor(by, part)).join(textIn(by)));
}

/** The filter join; `getter` makes the function that reads its attribute. */
export const joinFilter = (getter: (budget: Budget, attribute: Value) => Getter): [string, Filter] =>
  escapingFilter('join', ['d?', 'attribute?'], (isEscaping, budget, value, separator = '', attribute = null) =>
    joined(isEscaping, budget, value, separator, getter(budget, attribute)),
  );

function replaced(
  isEscaping: boolean,
  budget: Budget,
  value: Value,
  old: Value = '',
  by: Value = '',
  count: Value = null,
): Value {
  const limit = count === null ? -1 : toIndex(count, 'a count');
  const isHtml = old instanceof Markup || (by instanceof Markup && !(value instanceof Markup));
  const given = softText(budget, value);
  const text = !isEscaping ? textIn(given) : isHtml ? toMarkup(given) : given;
  budget.text(textIn(text).length);
  const [sought, put] = [old, by].map((one) => textFor(text, softText(budget, one)));
  const times = limit < 0 ? Number.POSITIVE_INFINITY : limit;
  return like(text, replace(budget, textIn(text), sought, put, times));
}

function fileSize(budget: Budget, value: Value, binary: Value = false): Value {
  const bytes = isNumber(value) ? toFloat(value) : isString(value) ? parseFloating(numberText(textIn(value))) : null;
  if (bytes === null) throw new TemplateError('filesizeformat takes a number');
  const base = isTrue(binary) ? 1024 : 1000;
  if (bytes === Number.NEGATIVE_INFINITY) throw new TemplateError('cannot convert float infinity to integer');
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

function xmlAttributes(isEscaping: boolean, budget: Budget, value: Value, autospace: Value = true): Value {
  if (!(value instanceof Dict)) throw new TemplateError('xmlattr takes a mapping');
  const parts: string[] = [];
  for (const [key, one] of value.entries()) {
    if (one === null || one instanceof Undefined) continue;
    if (!isString(key) || /[\s/>=]/.test(textIn(key))) throw new TemplateError('Invalid character in attribute name');
    parts.push(`${toMarkup(key).text}="${escaped(budget, one).text}"`);
  }
  const text = parts.join(' ');
  budget.text(text.length);
  const spaced = isTrue(autospace) && text !== '' ? ` ${text}` : text;
  return isEscaping ? new Markup(spaced) : spaced;
}

function wrapped(
  budget: Budget,
  value: Value,
  width: Value = 79,
  breakLongWords: Value = true,
  wrapString: Value = null,
  breakOnHyphens: Value = true,
): Value {
  if (!isString(value)) throw new TemplateError(`wordwrap: '${typeName(value)}' is no str`);
  const glue = wrapString ?? '\n';
  if (!isString(glue)) throw new TemplateError(`wordwrap: '${typeName(glue)}' is no str`);
  const options = {
    width: toIndex(width, 'a width'),
    breaksLongWords: isTrue(breakLongWords),
    breaksOnHyphens: isTrue(breakOnHyphens),
    // Like jinja2 with textwrap: only true itself splits chunks at hyphens, but any true value breaks words that are too long.
    partsAtHyphens: breakOnHyphens === true,
  };
  const lines = linesOf(textIn(value)).map((line) => {
    const parts = wrap(budget, line, options).map((one) => textFor(glue, one));
    budget.text(line.length + (parts.length + 1) * textIn(glue).length);
    return parts.join(textIn(glue));
  });
  return like(glue, lines.join(textIn(glue)));
}

/** The scheme of an address, with its colon. */
const SCHEME = /^[\p{L}\p{N}_.+-]{2,}:\/{0,2}\n?$/u;

function linked(
  isEscaping: boolean,
  budget: Budget,
  value: Value,
  limit: Value = null,
  noFollow: Value = false,
  target: Value = null,
  rel: Value = null,
  extraSchemes: Value = null,
): Value {
  const schemes = extraSchemes === null ? [] : listOf(budget, extraSchemes).map(textOrFail);
  const wrong = schemes.find((scheme) => !SCHEME.test(scheme));
  if (wrong !== undefined) throw new TemplateError(`${quote(wrong)} is not a valid URI scheme prefix.`);
  const relations = new Set(['noopener', ...(isTrue(noFollow) ? ['nofollow'] : [])]);
  for (const one of rel !== null && isTrue(rel) ? words(textOrFail(rel)) : []) relations.add(one);
  const text = escaped(budget, value).text;
  budget.text(text.length);
  const html = urlize(budget, text, {
    limit: limit === null ? null : toIndex(limit, 'a limit'),
    rel: [...relations].sort(compareCodePoints).join(' '),
    target: target === null || !isTrue(target) ? '' : textOrFail(target),
    schemes,
  });
  return isEscaping ? new Markup(html) : html;
}

function textOrFail(value: Value): string {
  if (isString(value)) return textIn(value);
  throw new TemplateError(`'${typeName(value)}' is no str`);
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
  escapingFilter('replace', ['old', 'new', 'count?'], replaced),
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
  escapingFilter('xmlattr', ['autospace?'], xmlAttributes),
  filter('striptags', [], (budget, value) => {
    const text = str(budget, value);
    budget.text(text.length * 2);
    return stripTags(text);
  }),
  filter('wordwrap', ['width?', 'break_long_words?', 'wrapstring?', 'break_on_hyphens?'], wrapped),
  escapingFilter('urlize', ['trim_url_limit?', 'nofollow?', 'target?', 'rel?', 'extra_schemes?'], linked),
  ...['escape', 'e'].map((name) => filter(name, [], escaped)),
  filter('forceescape', [], (budget, value) => toMarkup(str(budget, value))),
  filter('safe', [], (budget, value) => new Markup(str(budget, value))),
];
