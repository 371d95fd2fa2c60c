// Python's pprint: prints values on several lines if one is too short.
import { compareCodePoints } from '../json.ts';
import type { Budget } from './budget.ts';
import { Bytes, quoteBytes } from './bytes.ts';
import { lengthOf, linesOf, quote, SPACE } from './characters.ts';
import { Dict } from './dict.ts';
import { compare } from './operators.ts';
import { repr } from './to_text.ts';
import { isNumber, isString, Tuple, typeName, type Value } from './values.ts';

const WIDTH = 80;

/** pprint.pformat(value) */
export function pretty(budget: Budget, value: Value): string {
  return new Printer(budget).print(withSortedKeys(budget, value), { indent: 0, after: 0, depth: 0 });
}

interface Position {
  /** Columns before the value. */
  indent: number;
  /** Columns to leave free for what follows on its last line. */
  after: number;
  /** Number of values around it. */
  depth: number;
}

class Printer {
  readonly #budget: Budget;

  constructor(budget: Budget) {
    this.#budget = budget;
  }

  print(value: Value, at: Position): string {
    const budget = this.#budget;
    const line = repr(budget, value);
    if (lengthOf(line) <= WIDTH - at.indent - at.after) return line;
    if (typeof value === 'string') return this.#text(value, at);
    if (value instanceof Bytes) return this.#bytes(value, at);
    if (Array.isArray(value)) return `[${this.#items(value, at, 1)}]`;
    if (value instanceof Tuple && !value.isNamed) {
      const end = value.items.length === 1 ? ',)' : ')';
      return `(${this.#items(value.items, at, end.length)}${end}`;
    }
    return value instanceof Dict ? `{${this.#fields(value, at)}}` : line;
  }

  /** @param end columns of the closing bracket */
  #items(items: readonly Value[], { indent, after, depth }: Position, end: number): string {
    const printed = items.map((item, i) => {
      const rest = i === items.length - 1 ? after + end : 1;
      return this.print(item, { indent: indent + 1, after: rest, depth: depth + 1 });
    });
    return this.#lines(printed, indent + 1, ',');
  }

  #fields(dict: Dict, { indent, after, depth }: Position): string {
    const printed = [...dict.entries()].map(([key, value], i) => {
      const name = `${repr(this.#budget, key)}: `;
      const rest = i === dict.length - 1 ? after + 1 : 1;
      return name + this.print(value, { indent: indent + 1 + lengthOf(name), after: rest, depth: depth + 1 });
    });
    return this.#lines(printed, indent + 1, ',');
  }

  #lines(lines: readonly string[], indent: number, separator = ''): string {
    const glue = `${separator}\n${' '.repeat(indent)}`;
    this.#budget.text(lines.reduce((sum, one) => sum + one.length + glue.length, 0));
    return lines.join(glue);
  }

  /** The parts of a text, one per line: its own lines, split further at white space. At the top level they are in parentheses. */
  #text(text: string, { indent, after, depth }: Position): string {
    const outer = depth === 0 ? 1 : 0;
    const [column, room, rest] = [indent + outer, WIDTH - indent - outer, after + outer];
    const parts: string[] = [];
    const lines = linesOf(text, true);
    for (const [i, line] of lines.entries()) {
      const isLast = i === lines.length - 1;
      if (lengthOf(quote(line)) <= room - (isLast ? rest : 0)) parts.push(quote(line));
      else parts.push(...brokenLine(line, room, isLast ? rest : 0));
    }
    if (parts.length === 1) return parts[0];
    const printed = this.#lines(parts, column);
    return outer ? `(${printed})` : printed;
  }

  /** Prints bytes, on several lines if needed; groups of four bytes stay together. */
  #bytes({ data }: Bytes, { indent, after, depth }: Position): string {
    if (data.length <= 4) return quoteBytes(data);
    const outer = depth === 0 ? 1 : 0;
    const [column, room] = [indent + outer, WIDTH - indent - outer];
    const parts: string[] = [];
    let begin = 0;
    for (let at = 0; at < data.length; at += 4) {
      const limit = at === Math.floor(data.length / 4) * 4 ? room - after - outer : room;
      if (at === begin || quoteBytes(data.subarray(begin, at + 4)).length <= limit) continue;
      parts.push(quoteBytes(data.subarray(begin, at)));
      begin = at;
    }
    parts.push(quoteBytes(data.subarray(begin)));
    const printed = this.#lines(parts, column);
    return outer ? `(${printed})` : printed;
  }
}

const WORD_AND_SPACE = new RegExp(`[^${SPACE}]*[${SPACE}]*`, 'gu');

/** The quoted parts of a line: words with the space after them. @param rest columns to leave free after the last part */
function brokenLine(line: string, room: number, rest: number): string[] {
  const words = [...line.matchAll(WORD_AND_SPACE)].map(([word]) => word).filter((word) => word !== '');
  const parts: string[] = [];
  let current = '';
  for (const [i, word] of words.entries()) {
    const limit = i === words.length - 1 ? room - rest : room;
    if (current !== '' && lengthOf(quote(current + word)) > limit) {
      parts.push(quote(current));
      current = '';
    }
    current += word;
  }
  return [...parts, quote(current)];
}

function withSortedKeys(budget: Budget, value: Value): Value {
  const sorted = (one: Value) => withSortedKeys(budget, one);
  budget.spend(2);
  if (Array.isArray(value)) return value.map(sorted);
  if (value instanceof Tuple) return value.isNamed ? value : new Tuple(value.items.map(sorted));
  if (!(value instanceof Dict)) return value;
  const entries = [...value.entries()].sort(([a], [b]) => {
    if (isBefore(budget, a, b)) return -1;
    return isBefore(budget, b, a) ? 1 : 0;
  });
  return new Dict(entries.map(([key, one]) => [key, sorted(one)]));
}

/** a < b, or by the names of the types if these have no order. */
function isBefore(budget: Budget, a: Value, b: Value): boolean {
  const [first, second] = [a, b].map(typeName);
  const areAlike = first === second || (isNumber(a) && isNumber(b)) || (isString(a) && isString(b));
  return areAlike ? compare(budget, '<', a, b) < 0 : compareCodePoints(first, second) < 0;
}
