// JSON with exact numbers, as Python's json module reads and writes them: 1234567890123456789 and 2.0 stay what they are, and keys keep
// the order of the text.

/** A float whose value is integral, which a JavaScript number cannot tell from an int: it prints as 2.0. */
export class Float {
  readonly value: number;

  constructor(value: number) {
    this.value = value;
  }

  /** Arithmetic and comparisons see the value. */
  valueOf(): number {
    return this.value;
  }

  toString(): string {
    return formatFloat(this.value);
  }
}

/** Python reads no longer integers than this from text (sys.int_info); reading takes more than linear time. */
const MAX_DIGITS = 4300;
/** What is nested deeper is not written: the writer calls itself. */
const MAX_DEPTH = 1000;

/** Whether a text may have what JSON.parse changes: long integers, integral floats, -0, keys that are indices (they would come first). */
const INEXACT = /\d{16}|\d\.0+(?!\d)|\d[eE]|-0|"\d+"\s*:/;

/**
 * Parses JSON. Integers beyond 2^53 are bigint, integral numbers with a point or an exponent are {@link Float}; all else is as JSON.parse
 * gives it, but that keys stand in the order of the text. Any depth of nesting is read, in linear time.
 * @throws SyntaxError as JSON.parse; RangeError for an integer of more than 4300 digits
 */
export function parseJson(text: string): unknown {
  const value: unknown = JSON.parse(text);
  return INEXACT.test(text) ? parseExactly(text) : value;
}

interface Open {
  list: unknown[] | null;
  fields: Map<string, unknown>;
  key: string | null;
}

/** @param text valid JSON */
function parseExactly(text: string): unknown {
  const opened: Open[] = [];
  let at = 0;
  for (;;) {
    let value: unknown;
    const character = text[at];
    if (character === '[' || character === '{') {
      opened.push({ list: character === '[' ? [] : null, fields: new Map(), key: null });
      at += 1;
      continue;
    }
    if (character === ']' || character === '}') {
      const { list, fields } = opened.pop()!;
      value = list ?? objectOf(fields);
      at += 1;
    } else if (character === '"') {
      const end = endOfString(text, at);
      const raw = text.slice(at, end);
      value = raw.includes('\\') ? JSON.parse(raw) : raw.slice(1, -1);
      at = end;
      const top = opened.at(-1);
      if (top && !top.list && top.key === null) {
        top.key = value as string;
        continue;
      }
    } else if (character === '-' || (character >= '0' && character <= '9')) {
      const begin = at;
      while (at < text.length && '+-.eE0123456789'.includes(text[at])) at += 1;
      value = numberOf(text.slice(begin, at));
    } else if (character === 't' || character === 'f' || character === 'n') {
      value = character === 'n' ? null : character === 't';
      at += character === 'f' ? 5 : 4;
    } else {
      at += 1; // white space, comma, colon
      continue;
    }
    const top = opened.at(-1);
    if (!top) return value;
    if (top.list) top.list.push(value);
    else top.fields.set(top.key!, value);
    top.key = null;
  }
}

/** The index after the string that begins at `begin`. */
function endOfString(text: string, begin: number): number {
  for (let quote = text.indexOf('"', begin + 1); ; quote = text.indexOf('"', quote + 1)) {
    let backslashes = 0;
    while (text[quote - 1 - backslashes] === '\\') backslashes += 1;
    if (backslashes % 2 === 0) return quote + 1;
  }
}

function numberOf(digits: string): number | bigint | Float {
  const value = Number(digits);
  if (/[.eE]/.test(digits)) return Number.isInteger(value) ? new Float(value) : value;
  if (Number.isSafeInteger(value)) return value === 0 ? 0 : value; // -0 is the int 0
  if (digits.length > MAX_DIGITS)
    throw new RangeError(`JSON: an integer of ${digits.length} digits (at most ${MAX_DIGITS})`);
  return BigInt(digits);
}

/** A plain object; where JavaScript would put keys that are indices first, a proxy whose keys stand as in the text. */
function objectOf(fields: ReadonlyMap<string, unknown>): object {
  const object: Record<string, unknown> = {};
  for (const [key, value] of fields) {
    // Assignment to __proto__ would set the prototype.
    if (key === '__proto__')
      Object.defineProperty(object, key, { value, writable: true, enumerable: true, configurable: true });
    else object[key] = value;
  }
  const wanted = [...fields.keys()];
  if (Object.keys(object).every((key, i) => key === wanted[i])) return object;
  return new Proxy(object, {
    ownKeys(target) {
      const now = new Set(Reflect.ownKeys(target));
      const kept = wanted.filter((key) => now.delete(key));
      return [...kept, ...now];
    },
  });
}

export interface JsonStyle {
  /** What a level is indented by; null: all in one line. @default null */
  indent?: string | null;
  /** @default ',' */
  itemSeparator?: string;
  /** @default ':' */
  keySeparator?: string;
  sortKeys?: boolean;
  /** Whether characters beyond ASCII are written as \\uXXXX. */
  ensureAscii?: boolean;
}

/**
 * Writes JSON: what {@link parseJson} gives, and maps with string keys. Numbers are written as Python writes them; undefined fields are
 * left out.
 * @throws TypeError for a value that JSON does not have; RangeError beyond 1000 levels
 */
export function formatJson(value: unknown, style: JsonStyle = {}): string {
  const { indent = null, itemSeparator = ',', keySeparator = ':', sortKeys = false, ensureAscii = false } = style;
  const parts: string[] = [];
  const text = (one: string) => parts.push(formatString(one, ensureAscii));

  const items = (all: readonly unknown[], brackets: string, depth: number, write: (one: never) => void) => {
    if (depth > MAX_DEPTH) throw new RangeError(`JSON: nested deeper than ${MAX_DEPTH} levels`);
    parts.push(brackets[0]);
    all.forEach((one, i) => {
      if (i > 0) parts.push(itemSeparator);
      if (indent !== null) parts.push(`\n${indent.repeat(depth + 1)}`);
      write(one as never);
    });
    if (indent !== null && all.length > 0) parts.push(`\n${indent.repeat(depth)}`);
    parts.push(brackets[1]);
  };

  const visit = (one: unknown, depth: number): unknown => {
    if (typeof one === 'string') return text(one);
    if (one === null || typeof one === 'boolean') return parts.push(String(one));
    if (typeof one === 'number' || typeof one === 'bigint') return parts.push(formatNumber(one));
    if (one instanceof Float) return parts.push(formatNumber(one.value, true));
    if (Array.isArray(one)) return items(one, '[]', depth, (item) => visit(item, depth + 1));
    if (typeof one !== 'object') throw new TypeError(`JSON has no ${typeof one}`);
    const fields = (one instanceof Map ? [...one] : Object.entries(one)) as [string, unknown][];
    const present = fields.filter(([, field]) => field !== undefined);
    if (sortKeys) present.sort(([a], [b]) => compareCodePoints(a, b));
    return items(present, '{}', depth, ([key, field]: [string, unknown]) => {
      text(key);
      parts.push(keySeparator);
      visit(field, depth + 1);
    });
  };

  visit(value, 0);
  return parts.join('');
}

function formatNumber(value: number | bigint, isFloat = !Number.isInteger(value)): string {
  if (typeof value === 'bigint' || !isFloat) return String(value);
  if (Number.isFinite(value)) return formatFloat(value);
  return Number.isNaN(value) ? 'NaN' : value > 0 ? 'Infinity' : '-Infinity';
}

function formatString(text: string, ensureAscii: boolean): string {
  // JSON.stringify writes lone surrogates as \uXXXX, which Python does for ensure_ascii alone.
  const written = LONE_SURROGATE.test(text)
    ? `"${[...text].map((one) => (LONE_SURROGATE.test(one) ? one : JSON.stringify(one).slice(1, -1))).join('')}"`
    : JSON.stringify(text);
  if (!ensureAscii) return written;
  return written.replace(/[^\0-~]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`);
}

const LONE_SURROGATE = /\p{Surrogate}/u;

/** Python's repr of a float: the shortest digits that read back, an exponent below 1e-4 and from 1e16. */
export function formatFloat(value: number): string {
  if (Number.isNaN(value)) return 'nan';
  if (!Number.isFinite(value)) return value > 0 ? 'inf' : '-inf';
  if (Object.is(value, -0)) return '-0.0';
  const [digits, exponent] = value.toExponential().split('e');
  const power = Number(exponent);
  if (power >= -4 && power < 16) return Number.isInteger(value) ? `${value}.0` : String(value);
  return `${digits}e${power < 0 ? '-' : '+'}${String(Math.abs(power)).padStart(2, '0')}`;
}

/** The order of two texts by code points, which is Python's; JavaScript's is by UTF-16 units. */
export function compareCodePoints(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    const difference = rank(a.charCodeAt(i)) - rank(b.charCodeAt(i));
    if (difference !== 0) return difference;
  }
  return a.length - b.length;
}

/** Surrogates, of which code points beyond U+FFFF are made, come after U+E000 to U+FFFF. */
function rank(unit: number): number {
  if (unit < 0xd800) return unit;
  return unit < 0xe000 ? unit + 0x2000 : unit - 0x800;
}
