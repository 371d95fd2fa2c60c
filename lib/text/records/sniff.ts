// The format of a file whose name does not tell it.
import { bytesOf, type Source } from './bytes.ts';
import type { Kind } from './formats.ts';
import { KNOWN_FIELDS } from './forms.ts';

/** Number of bytes at the beginning of a file that are looked at. */
const HEAD = 2 ** 16;
/** Share of zero bytes above which a file is not text: in UTF-16 every second byte of Latin letters is 0. */
const MANY_ZEROS = 1 / 8;

/** 'lines' or 'json' if the file begins like JSON lines or a list of JSON objects, else 'text'. Throws if it is neither. */
export async function sniff(source: Source, kind: 'text' | 'other'): Promise<Kind> {
  const { path } = source;
  const pieces: Buffer[] = [];
  let length = 0;
  for await (const piece of bytesOf(source)) {
    pieces.push(piece);
    length += piece.length;
    if (length >= HEAD) break;
  }
  const bytes = Buffer.concat(pieces).subarray(0, HEAD);
  const head = bytes
    .toString('utf8')
    .replace(/^\ufeff/, '')
    .trimStart();
  // A byte order mark of UTF-16 is reported when the text is read.
  if (kind === 'text' && bytes[0]! < 0xfe && bytes.filter((byte) => byte === 0).length > bytes.length * MANY_ZEROS) {
    throw new Error(`${path}: is binary data or UTF-16 without a mark, not UTF-8 text`);
  }
  if (head.includes('\0') && kind === 'other') throw new Error(`${path}: is binary data, not text`);
  const [line = ''] = head.split('\n', 1);
  if (/^\{\s*"/.test(line)) {
    const names = fieldsOf(line);
    if (names?.some((name) => KNOWN_FIELDS.has(name))) return 'lines';
    if (names && kind === 'other') {
      throw new Error(`${path}: begins like JSON lines of { ${names.slice(0, 8).join(', ')} }; name it .jsonl or .txt`);
    }
  }
  if (kind === 'other' && /^\[\s*\{\s*"/.test(head)) return 'json';
  return 'text';
}

/** The fields of the object on a line; for a line longer than the head, what seem to be fields. Null if it is no object. */
function fieldsOf(line: string): string[] | null {
  try {
    return Object.keys(JSON.parse(line) as object);
  } catch {
    if (line.length < HEAD / 2) return null;
    return Array.from(line.matchAll(/[{,]\s*"([^"\\]*)"\s*:/g), ([, name]) => name!);
  }
}
