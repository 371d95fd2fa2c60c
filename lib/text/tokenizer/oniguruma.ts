// Converts regular expressions of Oniguruma, in Ruby's syntax, to JavaScript's.
import * as library from '@huggingface/tokenizers';

/** @throws Error if JavaScript has no equivalent */
export function toJavaScript(source: string): RegExp {
  const pattern = { Regex: withoutPossessive(source) };
  return new SplitPreTokenizer({ type: 'Split', pattern, behavior: 'Isolated', invert: false }).pattern;
}

/** The library exports it but does not declare it. */
const { SplitPreTokenizer } = library as unknown as {
  SplitPreTokenizer: new (fields: object) => { pattern: RegExp };
};

/**
 * Rewrites what the library misreads: possessive quantifiers and atomic groups become a lookahead that captures, `(?i)` becomes a group,
 * and the two letters beyond ASCII that fold to ASCII ones are added.
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
  let open = 0; // groups that `(?i)` has opened in the current one
  let atom = -1; // where in `out` the part begins that a quantifier would repeat
  const write = (text: string) => {
    atom = out.length;
    out += text;
  };
  for (let i = 0; i < source.length; ) {
    const part = partAt(source, i);
    const char = part[0]!;
    i += part.length;
    if (part === '(?i)') {
      ignoresCase = true;
      open += 1;
      out += '(?i:';
      atom = -1;
    } else if (char === '(') {
      groups.push({ begin: out.length, isAtomic: part === '(?>', ignoresCase, open });
      ignoresCase ||= part === '(?i:';
      open = 0;
      if (part !== '(?>') out += part;
      atom = -1;
    } else if (char === ')') {
      const group = groups.pop();
      if (!group) throw new Error(`a group closes that was not opened, at ${i - 1}`);
      out += ')'.repeat(open);
      if (group.isAtomic) out = out.slice(0, group.begin) + atomic(out.slice(group.begin));
      else out += ')';
      ({ ignoresCase, open } = group);
      atom = group.begin;
    } else if (atom >= 0 && /^[*+?]\+$/.test(part)) {
      out = out.slice(0, atom) + atomic(out.slice(atom) + char);
    } else if (/^[*+?{]./.test(part) || /^[*+?]$/.test(part)) {
      out += part;
    } else if (char === '|') {
      out += part;
      atom = -1;
    } else if (char === '[') {
      write(ignoresCase ? withFolds(part) : part);
    } else {
      write(ignoresCase ? (FOLDS[part] ?? part) : part);
    }
  }
  return out + ')'.repeat(open);
}

const ESCAPE = /^\\(?:[pPxu]\{[^}]*\}|x[\da-fA-F]{2}|u[\da-fA-F]{4}|[\s\S])/u;
const OPTIONS = /^\(\?[a-z-]+[:)]/;

/** The part at `i`: an escape, a class, the opening of a group, a quantifier, or a character. */
function partAt(source: string, i: number): string {
  const rest = source.slice(i, i + 80);
  if (rest.startsWith('[')) return source.slice(i, classEnd(source, i));
  if (rest.startsWith('\\')) {
    const part = ESCAPE.exec(rest)?.[0] ?? '\\';
    if (/^\\[1-9kgGKRXyY]/.test(part))
      throw new Error(`${part} is not supported: it is a reference, or depends on where the search began`);
    return part;
  }
  const options = OPTIONS.exec(rest)?.[0];
  if (options && !['(?i:', '(?i)'].includes(options)) throw new Error(`options are not supported: ${options}`);
  if (options) return options;
  const exact = /^\{\d+\}\?/.exec(rest)?.[0];
  if (exact) throw new Error(`${exact} is not supported: Ruby reads it as (…{…})?, other engines do not`);
  const known = /^(?:\(\?(?:<?[=!]|[:>])|[*+?][+?]?|\{\d*,?\d*\})/.exec(rest)?.[0];
  return known && known !== '{}' && known !== '{,}' ? known : String.fromCodePoint(rest.codePointAt(0)!);
}

/** With case ignored, U+017F equals s and U+212A equals k. */
const FOLDS: Record<string, string> = { s: '[sS\u017f]', S: '[sS\u017f]', k: '[kK\u212a]', K: '[kK\u212a]' };

function withFolds(text: string): string {
  if (text.startsWith('[^')) return text;
  const letters = text.replace(/\\[\s\S]/g, '').replace(/\[:\w+:\]/g, '');
  const more = `${/[sS]/.test(letters) ? '\u017f' : ''}${/[kK]/.test(letters) ? '\u212a' : ''}`;
  return `${text.slice(0, -1)}${more}]`;
}

/** The index after a character class, which may contain others. */
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
      if (source[i + 1] === ']') i += 1; // a bracket at the front is literal
    } else if (source[i] === ']') {
      depth -= 1;
      if (depth === 0) return i + 1;
    }
  }
  throw new Error(`a character class does not end, at ${begin}`);
}
