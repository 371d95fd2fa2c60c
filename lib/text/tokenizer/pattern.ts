// Patterns of tokenizer.json: literal text, or a regular expression of Oniguruma, which is converted to JavaScript's.
import { MAX_PARTS } from './budget.ts';
import { fieldsOf } from './fields.ts';
import { toJavaScript } from './oniguruma.ts';
import { unitsAt } from './piece.ts';

/** Calls `visit` for each match, from left to right; matches do not overlap. */
export type Pattern = (text: string, visit: (begin: number, end: number) => void) => void;

/** What is known about a file while its parts are read. */
export interface PartContext {
  /** Whether the file has a regular expression of its own, which may take any time. */
  hasRegex: boolean;
  /** Number of normalizers and pre-tokenizers read so far. */
  numParts: number;
}

export function countPart(context: { numParts: number }, where: string): void {
  context.numParts += 1;
  if (context.numParts > MAX_PARTS) throw new Error(`${where}: there are more than ${MAX_PARTS} such parts`);
}

/** Longest regular expression in characters. The longest in public tokenizers has 2,000. */
const MAX_REGEX = 16_384;

/** Reads `{ String }` or `{ Regex }`. */
export function readPattern(value: unknown, where: string, context: PartContext): Pattern {
  const { String: literal, Regex: source } = fieldsOf(value, where) as { String?: unknown; Regex?: unknown };
  if (typeof literal === 'string' && literal !== '') return literalPattern(literal);
  if (typeof source !== 'string' || source === '') {
    throw new Error(`${where} must be { String } or { Regex }, got ${JSON.stringify(value)}`);
  }
  if (source.length > MAX_REGEX)
    throw new Error(`${where}: the regular expression has ${source.length} characters, more than ${MAX_REGEX}`);
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
      // V8 also matches (?<![\s\S]) and the like between the halves of a surrogate pair.
      if (isInPair(text, match.index)) {
        from = match.index + 1;
        continue;
      }
      // Like Oniguruma's iterator: an empty match directly after another match does not count.
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
