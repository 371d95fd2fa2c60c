// Cuts a JSON text that is too large to be parsed at once into its values.
import { bytesOf, MAX_LINE, type Source } from './bytes.ts';

export interface JsonValue {
  bytes: Buffer;
  /** Its index in the list; null if it is in none. */
  index: number | null;
  line: number;
}

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COMMA = 0x2c;
const [OPEN_LIST, CLOSE_LIST, OPEN_OBJECT, CLOSE_OBJECT] = [0x5b, 0x5d, 0x7b, 0x7d];
const isSpace = (byte: number) => byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;

/**
 * Cuts a file into the elements of its list, or else into its values; these need not be valid JSON. Only one is held at a time, so that the
 * file may be larger than memory.
 */
export async function* valuesOf(source: Source): AsyncGenerator<JsonValue> {
  const { path } = source;
  let parts: Buffer[] = []; // parts of the current value
  let length = 0;
  let depth = 0; // open brackets in it
  let isText = false; // within "…"
  let isEscaped = false;
  let hasBegun = false;
  let hasValues = false; // whether a value has been cut out
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
      if (isText) {
        const end = piece.indexOf(QUOTE, i);
        const last = end < 0 ? piece.length : end;
        isEscaped = endsEscaped(piece.subarray(i, last), isEscaped);
        isText = end < 0 || isEscaped;
        if (end >= 0) isEscaped = false;
        i = last;
        continue;
      }
      if (byte === 0x0a) line += 1; // strings have no line ends
      if (isSpace(byte) && !hasBegun) continue;
      if (list === 'closed') throw new Error(`${path}:${line}: there is something after the list`);
      const endsElement = list === 'open' && depth === 0 && (byte === COMMA || byte === CLOSE_LIST);
      if (endsElement) {
        const isEmpty = !hasBegun && !hasValues && byte === CLOSE_LIST;
        if (!hasBegun && !isEmpty)
          throw new Error(
            `${path}[${index}]: is not JSON: nothing before ${JSON.stringify(String.fromCharCode(byte))} on line ${line}`,
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
          `${path}${what}: the value has more than ${MAX_LINE} bytes; write one record per line to a .jsonl`,
        );
      }
    }
  }
  if (list === 'open') throw new Error(`${path}[${index}]: is not JSON: the file ends within the list`);
  if (hasBegun) yield taken(Buffer.alloc(0));
}

/** Whether the byte after these bytes of a string is escaped. @param isEscaped whether the first of them is */
function endsEscaped(bytes: Buffer, isEscaped: boolean): boolean {
  let count = 0;
  while (count < bytes.length && bytes[bytes.length - 1 - count] === BACKSLASH) count += 1;
  if (count === bytes.length && isEscaped) count += 1;
  return count % 2 === 1;
}
