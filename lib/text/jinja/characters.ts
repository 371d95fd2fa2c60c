// Texts as Python sees them: sequences of code points, with Python's definition of white space.

/** For use in a character class: the characters for which str.isspace() is true. JavaScript's \s is a different set. */
export const SPACE = '\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000';

const SURROGATE = /[\ud800-\udfff]/;

/** The code points of a text. */
export function pointsOf(text: string): string[] {
  return SURROGATE.test(text) ? [...text] : text.split('');
}

export function lengthOf(text: string): number {
  if (!SURROGATE.test(text)) return text.length;
  let pairs = 0;
  for (let i = 0; i < text.length; i++) if (isPair(text, i)) pairs += 1;
  return text.length - pairs;
}

/** Whether two units form one character. */
function isPair(text: string, at: number): boolean {
  const high = text.charCodeAt(at);
  if (high < 0xd800 || high >= 0xdc00) return false;
  const low = text.charCodeAt(at + 1);
  return low >= 0xdc00 && low < 0xe000;
}

/** Converts an index in code points to one in UTF-16 units. */
function toUnits(text: string, points: number): number {
  let at = 0;
  for (let i = 0; i < points && at < text.length; i++) at += isPair(text, at) ? 2 : 1;
  return at;
}

/** The code points [begin, end) of a text. */
export function sliceOf(text: string, begin: number, end: number): string {
  if (!SURROGATE.test(text)) return text.slice(begin, end);
  return text.slice(toUnits(text, begin), toUnits(text, end));
}

/** The code point at an index, which may count from the end; undefined if it is outside. */
export function pointAt(text: string, index: number): string | undefined {
  if (!SURROGATE.test(text)) return text.at(index);
  const at = index < 0 ? index + lengthOf(text) : index;
  return at < 0 ? undefined : sliceOf(text, at, at + 1) || undefined;
}

/** Converts an index in UTF-16 units to one in code points. */
export function toPoints(text: string, units: number): number {
  return units < 0 ? -1 : lengthOf(text.slice(0, units));
}

export interface Sides {
  left?: boolean;
  right?: boolean;
}

const isSpace = new RegExp(`[${SPACE}]`);

/** str.strip(): removes the characters (white space if null) at the ends. */
export function strip(text: string, characters: string | null, { left = true, right = true }: Sides = {}): string {
  const set = characters === null ? null : new Set(characters);
  const isAway = (one: string) => (set ? set.has(one) : isSpace.test(one));
  let begin = 0;
  let end = text.length;
  while (left && begin < end) {
    const one = String.fromCodePoint(text.codePointAt(begin)!);
    if (!isAway(one)) break;
    begin += one.length;
  }
  while (right && end > begin) {
    const one = text.slice(end - begin > 1 && isPair(text, end - 2) ? end - 2 : end - 1, end);
    if (!isAway(one)) break;
    end -= one.length;
  }
  return text.slice(begin, end);
}

/** str.split() without a separator: the words between white space. */
export function words(text: string, limit = Infinity): string[] {
  const found: string[] = [];
  const word = new RegExp(`[^${SPACE}]+`, 'g');
  for (let match = word.exec(text); match; match = word.exec(text)) {
    if (found.length === limit) {
      found.push(text.slice(match.index));
      break;
    }
    found.push(match[0]);
  }
  return found;
}

const LINE_END = '\\r\\n|[\\n\\v\\f\\r\\x1c-\\x1e\\x85\\u2028\\u2029]';

/** str.splitlines(): splits at all line ends that Python knows. */
export function linesOf(text: string, keepEnds = false): string[] {
  const lines: string[] = [];
  const end = new RegExp(LINE_END, 'g');
  let begin = 0;
  for (let match = end.exec(text); match; match = end.exec(text)) {
    lines.push(text.slice(begin, keepEnds ? end.lastIndex : match.index));
    begin = end.lastIndex;
  }
  if (begin < text.length) lines.push(text.slice(begin));
  return lines;
}

/** Characters for which str.isprintable() is false: repr() escapes them. */
const UNPRINTABLE = /[\p{C}\p{Zl}\p{Zp}]|(?! )\p{Zs}/u;

export const isPrintable = (text: string): boolean => !UNPRINTABLE.test(text);

/** Python's repr of a text. */
export function quote(text: string): string {
  const mark = text.includes("'") && !text.includes('"') ? '"' : "'";
  let quoted = '';
  for (const one of text) {
    if (one === '\\' || one === mark) quoted += `\\${one}`;
    else if (one === '\n') quoted += '\\n';
    else if (one === '\r') quoted += '\\r';
    else if (one === '\t') quoted += '\\t';
    else quoted += isPrintable(one) ? one : escapeOf(one);
  }
  return mark + quoted + mark;
}

/** \xXX, \uXXXX or \UXXXXXXXX. */
export function escapeOf(point: string): string {
  const code = point.codePointAt(0)!;
  const hex = code.toString(16);
  if (code < 0x100) return `\\x${hex.padStart(2, '0')}`;
  return code < 0x10000 ? `\\u${hex.padStart(4, '0')}` : `\\U${hex.padStart(8, '0')}`;
}

const DIGRAPHS: Record<string, string> = { Ǆ: 'ǅ', ǆ: 'ǅ', Ǉ: 'ǈ', ǉ: 'ǈ', Ǌ: 'ǋ', ǌ: 'ǋ', Ǳ: 'ǲ', ǳ: 'ǲ' };

/** A character as the first of a word in a title. */
export function titleCase(point: string): string {
  if (point in DIGRAPHS) return DIGRAPHS[point];
  if (/[\u10d0-\u10ff]|\p{Lt}/u.test(point)) return point; // Georgian has upper case, but does not use it in titles
  const upper = point.toUpperCase();
  return upper.length > point.length ? upper[0] + upper.slice(1).toLowerCase() : upper;
}

/** The first code point, and the rest. */
export function headOf(text: string): [head: string, rest: string] {
  const end = toUnits(text, 1);
  return [text.slice(0, end), text.slice(end)];
}

/** str.capitalize(). */
export function capitalize(text: string): string {
  const [head, rest] = headOf(text);
  return titleCase(head) + rest.toLowerCase();
}
