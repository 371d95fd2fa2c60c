// Converts HTML to the text that it shows, like markupsafe and Python's html.unescape().

import { words } from './characters.ts';
import { ENTITY_NAMES } from './entity_names.ts';
import { TemplateError } from './errors.ts';

const REFERENCE = /&(#\d+;?|#x[\da-f]+;?|[^\t\n\f <&#;]{1,32};?)/giu;

/** Largest number of digits that Python's int() accepts. */
const MAX_DIGITS = 4300;

/** Removes tags and comments, replaces white space by single spaces, and resolves character references. */
export function stripTags(text: string): string {
  return resolveReferences(words(without(without(text, '<!--', '-->'), '<', '>')).join(' '));
}

/** A text without the parts from `open` to `close`. */
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

/** Replaces &lt; and the like by their characters. */
export function resolveReferences(text: string): string {
  return text.replace(REFERENCE, (_, reference: string) => {
    if (reference.startsWith('#')) return byNumber(reference.slice(1).replace(';', ''));
    const points = [...reference];
    for (let count = points.length; count > 1; count--) {
      const found = names().get(points.slice(0, count).join(''));
      if (found !== undefined) return found + points.slice(count).join('');
    }
    return `&${reference}`;
  });
}

function byNumber(digits: string): string {
  const isHex = /^x/i.test(digits);
  if (!isHex && digits.length > MAX_DIGITS)
    throw new TemplateError(`a reference has ${digits.length} digits, more than ${MAX_DIGITS}`);
  const code = isHex ? Number.parseInt(digits.slice(1), 16) : Number(digits);
  if (code === 0 || (code >= 0xd800 && code <= 0xdfff) || code > 0x10ffff) return '\ufffd';
  if (code >= 0x80 && code <= 0x9f) return WINDOWS_1252[code - 0x80];
  return isCharacter(code) ? String.fromCodePoint(code) : '';
}

/** The characters for the codes from 0x80 on. */
const WINDOWS_1252 = '€\x81‚ƒ„…†‡ˆ‰Š‹Œ\x8dŽ\x8f\x90‘’“”•–—˜™š›œ\x9džŸ';

/** Whether the standard allows a reference to a character: no control other than white space, no noncharacter. */
function isCharacter(code: number): boolean {
  if (code < 0x20) return [0x9, 0xa, 0xc, 0xd].includes(code);
  return code !== 0x7f && !(code >= 0xfdd0 && code <= 0xfdef) && (code & 0xfffe) !== 0xfffe;
}

let table: Map<string, string> | null = null;

/** Characters by name, with the semicolon and, if HTML allows it, without. */
function names(): Map<string, string> {
  if (table) return table;
  table = new Map();
  for (const [, name, sign, codes] of ENTITY_NAMES.matchAll(/(\w+)([=!])(\S+)/g)) {
    const text = String.fromCodePoint(...codes.split('+').map((code) => Number.parseInt(code, 16)));
    table.set(`${name};`, text);
    if (sign === '!') table.set(name, text);
  }
  return table;
}
