// Patterns of tokenizer.json: literal text, or a regular expression of Oniguruma, which is rewritten for JavaScript.
import * as library from '@huggingface/tokenizers';
import { MAX_PARTS } from './budget.ts';
import { fieldsOf } from './fields.ts';
import { unitsAt } from './piece.ts';

/** Calls `visit` for each match from left to right, none overlapping. */
export type Pattern = (text: string, visit: (begin: number, end: number) => void) => void;

/** What is known of a file while its parts are read. */
export interface PartContext {
  /** Whether the file brings a regular expression of its own, which may take any time. */
  hasRegex: boolean;
  /** Normalizers and pre-tokenizers so far. */
  numParts: number;
}

export function countPart(context: { numParts: number }, where: string): void {
  context.numParts += 1;
  if (context.numParts > MAX_PARTS) throw new Error(`${where}: there are more than ${MAX_PARTS} such parts`);
}

/** Characters of a regular expression: the longest in public tokenizers has 2,000. */
const MAX_REGEX = 16_384;

/** `{ String }` or `{ Regex }`. */
export function readPattern(value: unknown, where: string, context: PartContext): Pattern {
  const { String: literal, Regex: source } = fieldsOf(value, where) as { String?: unknown; Regex?: unknown };
  if (typeof literal === 'string' && literal !== '') return literalPattern(literal);
  if (typeof source !== 'string' || source === '') {
    throw new Error(`${where} must be { String } or { Regex }, got ${JSON.stringify(value)}`);
  }
  if (source.length > MAX_REGEX) throw new Error(`${where}: a regular expression of ${source.length} characters`);
  context.hasRegex = true;
  try {
    return regexPattern(toJavaScript(source));
  } catch (error) {
    throw new Error(`${where}: ${(error as Error).message}`, { cause: error });
  }
}

export function literalPattern(literal: string): Pattern {
  return (text, visit) => {
    for (let at = text.indexOf(literal); at >= 0; at = text.indexOf(literal, at + literal.length)) {
      visit(at, at + literal.length);
    }
  };
}

/** @param regex with the flags g and u */
export function regexPattern(regex: RegExp): Pattern {
  return (text, visit) => {
    let lastEnd = -1;
    let from = 0;
    while (from <= text.length) {
      regex.lastIndex = from;
      const match = regex.exec(text);
      if (match === null) return;
      const end = match.index + match[0].length;
      // V8 finds (?<![\s\S]) and the like between the halves of a surrogate pair too.
      if (isInPair(text, match.index)) {
        from = match.index + 1;
        continue;
      }
      // As Oniguruma's iterator: an empty match right behind another one does not count.
      if (match[0] === '' && end === lastEnd) {
        from += from < text.length ? unitsAt(text, from) : 1;
        continue;
      }
      visit(match.index, end);
      from = end;
      lastEnd = end;
    }
  };
}

const isInPair = (text: string, at: number) =>
  (text.charCodeAt(at) & 0xfc00) === 0xdc00 && (text.charCodeAt(at - 1) & 0xfc00) === 0xd800;

/** A regular expression of Oniguruma in Ruby's syntax. Throws where JavaScript has no equal. */
export function toJavaScript(source: string): RegExp {
  const pattern = { Regex: withoutPossessive(source) };
  return new SplitPreTokenizer({ type: 'Split', pattern, behavior: 'Isolated', invert: false }).pattern;
}

/** The library exports it, its declarations do not. */
const { SplitPreTokenizer } = library as unknown as {
  SplitPreTokenizer: new (fields: object) => { pattern: RegExp };
};

/**
 * What the library takes for something else, in terms that it knows: possessive quantifiers and atomic groups as a lookahead that captures,
 * `(?i)` as a group, and the two letters beyond ASCII that fold to ASCII ones.
 */
function withoutPossessive(source: string): string {
  let out = '';
  let count = 0;
  const atomic = (body: string) => {
    count += 1;
    return `(?:(?=(?<_${count}>${body}))\\k<_${count}>)`; // no letters: the library doubles their case
  };
  const groups: { begin: number; isAtomic: boolean; ignoresCase: boolean; open: number }[] = [];
  let ignoresCase = false;
  let open = 0; // groups that `(?i)` has opened in the present one
  let atom = -1;
  let i = 0;
  while (i < source.length) {
    const rest = source.slice(i, i + 8);
    const char = source[i]!;
    if (char === '\\') {
      const escaped =
        /^\\(?:[pPxuk][{<][^}>]*[}>]|x[\da-fA-F]{2}|u[\da-fA-F]{4}|[\s\S])/u.exec(source.slice(i, i + 80))?.[0] ?? char;
      if (/^\\(?:[1-9]|k)/.test(escaped)) throw new Error(`references to groups are not supported: ${escaped}`);
      atom = out.length;
      out += escaped;
      i += escaped.length;
    } else if (char === '[') {
      const end = classEnd(source, i);
      const text = source.slice(i, end);
      atom = out.length;
      out += ignoresCase ? withFolds(text) : text;
      i = end;
    } else if (/^\(\?i\)/.test(rest)) {
      ignoresCase = true;
      open += 1;
      out += '(?i:';
      atom = -1;
      i += 4;
    } else if (char === '(') {
      const isAtomic = rest.startsWith('(?>');
      groups.push({ begin: out.length, isAtomic, ignoresCase, open });
      open = 0;
      if (rest.startsWith('(?i:')) ignoresCase = true;
      const prefix = isAtomic ? '(?>' : (/^\(\?(?:i:|<?[=!]|:)/.exec(rest)?.[0] ?? '(');
      out += isAtomic ? '' : prefix;
      atom = -1;
      i += prefix.length;
    } else if (char === ')') {
      const group = groups.pop();
      if (!group) throw new Error(`a group closes that was not opened, at ${i}`);
      out += `${')'.repeat(open)}`;
      if (group.isAtomic) out = out.slice(0, group.begin) + atomic(out.slice(group.begin));
      else out += ')';
      ({ ignoresCase, open } = group);
      atom = group.begin;
      i += 1;
    } else if (atom >= 0 && /^[*+?]\+/.test(rest)) {
      out = out.slice(0, atom) + atomic(out.slice(atom) + char);
      i += 2;
    } else if (atom >= 0 && /^[*+?]/.test(rest)) {
      const quantifier = /^[*+?]\??/.exec(rest)![0];
      out += quantifier;
      i += quantifier.length;
    } else if (char === '|') {
      atom = -1;
      out += char;
      i += 1;
    } else {
      const isQuantifier = char === '{' && /^\{\d*,?\d*\}/.test(source.slice(i));
      if (isQuantifier) {
        const quantifier = source.slice(i, source.indexOf('}', i) + 1);
        out += quantifier;
        i += quantifier.length;
        continue;
      }
      atom = out.length;
      out += ignoresCase ? (FOLDS[char] ?? char) : char;
      i += 1;
    }
  }
  return out + ')'.repeat(open);
}

/** U+017F and U+212A fold to s and k. */
const FOLDS: Record<string, string> = { s: '[sS\u017f]', S: '[sS\u017f]', k: '[kK\u212a]', K: '[kK\u212a]' };

function withFolds(text: string): string {
  if (text.startsWith('[^')) return text;
  const letters = text.replace(/\\[\s\S]/g, '').replace(/\[:\w+:\]/g, '');
  const more = `${/[sS]/.test(letters) ? '\u017f' : ''}${/[kK]/.test(letters) ? '\u212a' : ''}`;
  return `${text.slice(0, -1)}${more}]`;
}

/** The index after a character class, in which there may be others. */
function classEnd(source: string, begin: number): number {
  let depth = 0;
  for (let i = begin; i < source.length; i++) {
    if (source[i] === '\\') i += 1;
    else if (source[i] === '[') {
      const named = /^\[:\^?\w+:\]/.exec(source.slice(i, i + 16));
      if (named && depth > 0) {
        i += named[0].length - 1;
        continue;
      }
      depth += 1;
      if (source[i + 1] === '^') i += 1;
      if (source[i + 1] === ']') i += 1; // a bracket at the front is itself
    } else if (source[i] === ']') {
      depth -= 1;
      if (depth === 0) return i + 1;
    }
  }
  throw new Error(`a character class does not end, at ${begin}`);
}
