// Wraps text to lines of some width, like Python's textwrap without changes of white space.
import type { Budget } from './budget.ts';
import { pointsOf, SPACE, strip } from './characters.ts';
import { TemplateError } from './errors.ts';

/** The characters that textwrap treats as white space. */
const BLANK = '\\t-\\r ';
const WORD = '[\\p{L}\\p{N}_]';
const LETTER = '[\\p{L}\\p{Nl}\\p{No}_]';
const BEFORE_DASH = '[\\p{L}\\p{N}_!"\'&.,?]';
/** Matches white space, a dash between words, or a word, which may end at its hyphen. */
const CHUNK = new RegExp(
  `[${BLANK}]+|(?<=${BEFORE_DASH})-{2,}(?=${WORD})|[^${BLANK}]+?(?:` +
    `-(?:(?<=${LETTER}{2}-)|(?<=${LETTER}-${LETTER}-))(?=${LETTER}-?${LETTER})` +
    `|(?=[${BLANK}]|$)|(?<=${BEFORE_DASH})(?=-{2,}${WORD}))`,
  'gu',
);
const BLANK_CHUNK = new RegExp(`[${BLANK}]+`, 'gu');

export interface WrapOptions {
  width: number;
  breaksLongWords: boolean;
  /** Whether words that are longer than a line are broken at hyphens. */
  breaksOnHyphens: boolean;
  /** Whether all other words are broken at hyphens. */
  partsAtHyphens: boolean;
}

/** The characters of a word, or of white space, that are not on a line yet. */
interface Chunk {
  points: readonly string[];
  begin: number;
}

/** Wraps one line. @throws TemplateError for a width below 1 */
export function wrap(budget: Budget, text: string, options: WrapOptions): string[] {
  const { width } = options;
  if (width <= 0) throw new TemplateError(`invalid width ${width} (must be > 0)`);
  budget.text(text.length);
  const chunks: Chunk[] = chunksOf(text, options.partsAtHyphens).map((one) => ({ points: pointsOf(one), begin: 0 }));
  budget.container(chunks.length);
  chunks.reverse();
  const lines: string[] = [];
  while (chunks.length > 0) {
    const line: string[] = [];
    let length = 0;
    if (lines.length > 0 && isBlankChunk(budget, chunks.at(-1)!)) chunks.pop();
    for (let next = chunks.at(-1); next && length + lengthOf(next) <= width; next = chunks.at(-1)) {
      line.push(restOf(next));
      length += lengthOf(next);
      chunks.pop();
    }
    const next = chunks.at(-1);
    if (next && lengthOf(next) > width) {
      if (options.breaksLongWords) line.push(cut(next, width - length, options.breaksOnHyphens));
      else if (line.length === 0) line.push(restOf(chunks.pop()!));
    }
    if (line.length > 0 && isBlank(line.at(-1)!)) line.pop();
    if (line.length > 0) lines.push(line.join(''));
    budget.spend(4);
  }
  return lines;
}

function chunksOf(text: string, partsAtHyphens: boolean): string[] {
  const chunks: string[] = [];
  let end = 0;
  for (const { 0: chunk, index } of text.matchAll(partsAtHyphens ? CHUNK : BLANK_CHUNK)) {
    if (index > end) chunks.push(text.slice(end, index));
    chunks.push(chunk);
    end = index + chunk.length;
  }
  if (end < text.length) chunks.push(text.slice(end));
  return chunks;
}

const isBlank = (text: string) => strip(text, null) === '';
const isSpace = new RegExp(`^[${SPACE}]$`);

function isBlankChunk(budget: Budget, { points, begin }: Chunk): boolean {
  let at = begin;
  while (at < points.length && isSpace.test(points[at])) at += 1;
  budget.spend((at - begin) >>> 2);
  return at === points.length;
}

const lengthOf = ({ points, begin }: Chunk) => points.length - begin;
const restOf = ({ points, begin }: Chunk) => points.slice(begin).join('');

/** Takes as much of a word as fits into `room`; if the word has hyphens, up to the last of them that fits. */
function cut(chunk: Chunk, room: number, breaksOnHyphens: boolean): string {
  const fitting = chunk.points.slice(chunk.begin, chunk.begin + room);
  const hyphen = breaksOnHyphens ? fitting.lastIndexOf('-') : -1;
  const end = hyphen > 0 && fitting.slice(0, hyphen).some((one) => one !== '-') ? hyphen + 1 : room;
  chunk.begin += end;
  return fitting.slice(0, end).join('');
}
