// Searches texts in linear time. JavaScript's own search takes quadratic time for some long texts.

/** Below this many pairs of units JavaScript's own search is always fast enough. */
const MAX_PAIRS = 2 ** 24;

const isShort = (text: string, sought: string) => text.length * sought.length < MAX_PAIRS;

/** Like text.indexOf(sought, from). */
export function indexOf(text: string, sought: string, from = 0): number {
  if (isShort(text, sought)) return text.indexOf(sought, from);
  return new Search(sought.length, (i) => sought.charCodeAt(i)).first(
    text.length - from,
    (i) => text.charCodeAt(from + i),
    from,
  );
}

/** Like text.lastIndexOf(sought). */
export function lastIndexOf(text: string, sought: string): number {
  if (isShort(text, sought)) return text.lastIndexOf(sought);
  const [last, end] = [sought.length - 1, text.length - 1];
  const backwards = new Search(sought.length, (i) => sought.charCodeAt(last - i));
  const at = backwards.first(text.length, (i) => text.charCodeAt(end - i), 0);
  return at < 0 ? -1 : text.length - at - sought.length;
}

/** Like text.split(by), with at most `limit` cuts. @param by not empty */
export function split(text: string, by: string, limit = Number.POSITIVE_INFINITY): string[] {
  if (isShort(text, by) && limit === Number.POSITIVE_INFINITY) return text.split(by);
  const parts: string[] = [];
  const table = isShort(text, by) ? null : new Search(by.length, (i) => by.charCodeAt(i));
  let begin = 0;
  while (parts.length < limit) {
    const at = table
      ? table.first(text.length - begin, (i) => text.charCodeAt(begin + i), begin)
      : text.indexOf(by, begin);
    if (at < 0) break;
    parts.push(text.slice(begin, at));
    begin = at + by.length;
  }
  parts.push(text.slice(begin));
  return parts;
}

/** Counts the occurrences of a text in another; they do not overlap. */
export function count(text: string, sought: string): number {
  if (!isShort(text, sought)) return split(text, sought).length - 1;
  let found = 0;
  for (let at = text.indexOf(sought); at >= 0; at = text.indexOf(sought, at + sought.length)) found += 1;
  return found;
}

/** The search of Knuth, Morris and Pratt. */
class Search {
  readonly #length: number;
  readonly #unit: (index: number) => number;
  /** For each prefix the length of its longest proper prefix that also ends it. */
  readonly #borders: Int32Array;

  constructor(length: number, unit: (index: number) => number) {
    this.#length = length;
    this.#unit = unit;
    this.#borders = new Int32Array(length);
    let border = 0;
    for (let i = 1; i < length; i++) {
      while (border > 0 && unit(i) !== unit(border)) border = this.#borders[border - 1];
      if (unit(i) === unit(border)) border += 1;
      this.#borders[i] = border;
    }
  }

  first(length: number, unit: (index: number) => number, offset: number): number {
    let matched = 0;
    for (let i = 0; i < length; i++) {
      const one = unit(i);
      while (matched > 0 && one !== this.#unit(matched)) matched = this.#borders[matched - 1];
      if (one === this.#unit(matched)) matched += 1;
      if (matched === this.#length) return offset + i - matched + 1;
    }
    return -1;
  }
}
