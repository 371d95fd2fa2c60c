// Links for the addresses in a text, as jinja2's urlize makes them.
import type { Budget } from './budget.ts';

import { SPACE } from './characters.ts';
import { escapeText } from './html.ts';
import { count } from './search.ts';

const WORD = '[\\p{L}\\p{N}_%-]';
const ADDRESS = new RegExp(
  `^(?:(?:https?://|www\\.)(?:(?:${WORD}+\\.)+)?(?:[a-z]{2,63}|xn--[\\p{L}\\p{N}_%]{2,59})` +
    `|(?:${WORD}{2,63}\\.)+(?:com|net|int|edu|gov|org|info|mil)` +
    `|https?://(?:\\p{Nd}{1,3}(?:\\.\\p{Nd}{1,3}){3}|\\[(?:[\\p{Nd}a-f]{0,4}:){2}(?:[\\p{Nd}a-f]{0,4}:?){1,6}\\]))` +
    `(?::\\p{Nd}{1,5})?(?:[/?#][^${SPACE}]*)?\\n?$`,
  'iu',
);
const MAIL = new RegExp(`^[^${SPACE}]+@[\\p{L}\\p{N}_][\\p{L}\\p{N}_.-]*\\.[\\p{L}\\p{N}_]+\\n?$`, 'u');
const SPACES = new RegExp(`([${SPACE}]+)`);
const OPENING = /^(?:[(<]|&lt;)+/;
const CLOSING = /(?:[)>.,]|&gt;)$/;
const PAIRS = [
  ['(', ')'],
  ['<', '>'],
  ['&lt;', '&gt;'],
] as const;

export interface LinkOptions {
  /** Number of characters of an address that are shown; null: all. */
  limit: number | null;
  rel: string;
  target: string;
  schemes: readonly string[];
}

/** @param escaped a text without <, > and & that are not meant as HTML */
export function urlize(budget: Budget, escaped: string, options: LinkOptions): string {
  const { rel, target } = options;
  const attributes = (rel && ` rel="${escapeText(rel)}"`) + (target && ` target="${escapeText(target)}"`);
  const words = escaped.split(SPACES).map((word) => {
    const [head, middle, tail] = partsOf(word);
    const link = head + linked(middle, attributes, options) + tail;
    budget.text(link.length);
    return link;
  });
  return words.join('');
}

/** Separates the brackets and punctuation around a word from it. A bracket that closes one within the word stays. */
function partsOf(word: string): [head: string, middle: string, tail: string] {
  const head = OPENING.exec(word)?.[0] ?? '';
  let middle = word.slice(head.length);
  let tail = '';
  for (let end = CLOSING.exec(middle.slice(-4)); end; end = CLOSING.exec(middle.slice(-4))) {
    tail = end[0] + tail;
    middle = middle.slice(0, middle.length - end[0].length);
  }
  for (const [open, close] of PAIRS) {
    const opened = count(middle, open);
    if (opened <= count(middle, close)) continue;
    for (let moved = Math.min(opened, count(tail, close)); moved > 0; moved--) {
      const end = tail.indexOf(close) + close.length;
      middle += tail.slice(0, end);
      tail = tail.slice(end);
    }
  }
  return [head, middle, tail];
}

function linked(word: string, attributes: string, { limit, schemes }: LinkOptions): string {
  if (ADDRESS.test(word)) {
    const scheme = /^https?:\/\//.test(word) ? '' : 'https://';
    return `<a href="${scheme}${word}"${attributes}>${shortened(word, limit)}</a>`;
  }
  if (word.startsWith('mailto:') && MAIL.test(word.slice(7))) return `<a href="${word}">${word.slice(7)}</a>`;
  const isMail = word.includes('@') && !word.startsWith('www.') && !word.includes(':') && MAIL.test(word);
  if (isMail) return `<a href="mailto:${word}">${word}</a>`;
  return schemes.reduce((link, scheme) => {
    const isLink = link !== scheme && link.startsWith(scheme);
    return isLink ? `<a href="${link}"${attributes}>${link}</a>` : link;
  }, word);
}

function shortened(text: string, limit: number | null): string {
  const points = [...text];
  return limit !== null && points.length > limit ? `${points.slice(0, limit).join('')}...` : text;
}
