// A .json file: one list of records, an object that holds one, or values one after another (JSON lines under this name).
import { bytesOf, MAX_LINE, type Source, textOf } from './bytes.ts';
import { KNOWN_FIELDS } from './forms.ts';
import { rowOf } from './json_lines.ts';
import type { Row } from './record.ts';

export async function* jsonFile(source: Source): AsyncGenerator<Row> {
  const { path } = source;
  let first: Row | null = null; // a value outside a list, until another follows
  let isSequence = false;
  for await (const { bytes, index, line } of valuesOf(source)) {
    const place = index === null ? `${path}:${line}` : `${path}[${index}]`;
    const row = rowOf(textOf(bytes, place, false), place);
    if (index !== null || isSequence) {
      yield row;
    } else if (first === null) {
      first = row;
    } else {
      isSequence = true;
      yield first;
      yield row;
    }
  }
  if (first && !isSequence) yield* withinObject(first, path);
}

/** { "data": [ … ] } and the like: the one field that holds a list of objects. An object with a field of a record is a record itself. */
function* withinObject(row: Row, path: string): Generator<Row> {
  const fields = Object.entries((row.value ?? {}) as Record<string, unknown>);
  const isObject = (one: unknown) => typeof one === 'object' && one !== null && !Array.isArray(one);
  const lists = fields.filter(([, list]) => Array.isArray(list) && list.length > 0 && list.every(isObject));
  if (!isObject(row.value) || lists.length === 0 || fields.some(([name]) => KNOWN_FIELDS.has(name))) {
    yield row;
    return;
  }
  if (lists.length > 1) {
    const names = lists.map(([name]) => JSON.stringify(name)).join(' and ');
    throw new Error(`${path}: holds several lists, ${names}; write the one to train on to a file of its own`);
  }
  const [name, list] = lists[0] as [string, unknown[]];
  for (const [i, value] of list.entries()) yield { value, place: `${path}: ${name}[${i}]` };
}

interface JsonValue {
  bytes: Buffer;
  /** Its place in the list; null: it is in none. */
  index: number | null;
  line: number;
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const [OPEN_LIST, CLOSE_LIST, OPEN_OBJECT, CLOSE_OBJECT] = [0x5b, 0x5d, 0x7b, 0x7d];
const isSpace = (byte: number) => byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;

/**
 * Cuts a file into the elements of the list that it is, or else into its values; what is cut out need not be JSON. Each is held alone, so
 * that the file may be larger than memory.
 */
async function* valuesOf(source: Source): AsyncGenerator<JsonValue> {
  const { path } = source;
  let parts: Buffer[] = []; // of the value that has begun
  let length = 0;
  let depth = 0; // brackets open in it
  let isText = false; // within "…"
  let isEscaped = false;
  let hasBegun = false;
  let hasValues = false; // some have been cut out
  let list: 'none' | 'open' | 'closed' = 'none';
  let index = 0;
  let [line, begunOn] = [1, 1];
  let isBegin = true;
  const taken = (last: Buffer): JsonValue => {
    const bytes = Buffer.concat([...parts, last]);
    parts = [];
    length = 0;
    hasBegun = false;
    hasValues = true;
    return { bytes, index: list === 'none' ? null : index++, line: begunOn };
  };
  for await (let piece of bytesOf(source)) {
    if (isBegin && piece.subarray(0, 3).equals(Buffer.of(0xef, 0xbb, 0xbf))) piece = piece.subarray(3);
    isBegin = false;
    let begin = 0;
    for (let i = 0; i < piece.length; i++) {
      const byte = piece[i]!;
      if (byte === 0x0a) line += 1;
      if (isText) {
        if (isEscaped) isEscaped = false;
        else if (byte === BACKSLASH) isEscaped = true;
        else if (byte === QUOTE) isText = false;
        continue;
      }
      if (isSpace(byte) && !hasBegun) continue;
      if (list === 'closed') throw new Error(`${path}:${line}: something follows the list`);
      const endsElement = list === 'open' && depth === 0 && (byte === COMMA || byte === CLOSE_LIST);
      if (endsElement) {
        const isEmpty = !hasBegun && !hasValues && byte === CLOSE_LIST;
        if (!hasBegun && !isEmpty)
          throw new Error(
            `${path}[${index}]: is not JSON: nothing before ${JSON.stringify(String.fromCharCode(byte))}`,
          );
        if (!isEmpty) yield taken(piece.subarray(begin, i));
        if (byte === CLOSE_LIST) list = 'closed';
        continue;
      }
      if (!hasBegun) {
        if (byte === OPEN_LIST && list === 'none' && !hasValues) {
          list = 'open';
          continue;
        }
        hasBegun = true;
        begin = i;
        begunOn = line;
      }
      if (byte === QUOTE) isText = true;
      else if (byte === OPEN_LIST || byte === OPEN_OBJECT) depth += 1;
      else if (byte === CLOSE_LIST || byte === CLOSE_OBJECT) depth -= 1;
      if (list === 'none' && depth <= 0 && (byte === CLOSE_OBJECT || byte === CLOSE_LIST || byte === 0x0a)) {
        depth = 0;
        yield taken(piece.subarray(begin, i + 1));
      }
    }
    if (hasBegun) {
      parts.push(piece.subarray(begin));
      length += piece.length - begin;
      if (length > MAX_LINE) {
        const what = list === 'open' ? `[${index}]` : `:${begunOn}`;
        throw new Error(
          `${path}${what}: more than ${MAX_LINE} bytes in one value; write one record a line to a .jsonl`,
        );
      }
    }
  }
  if (list === 'open') throw new Error(`${path}[${index}]: is not JSON: the file ends within the list`);
  if (hasBegun) yield taken(Buffer.alloc(0));
}
