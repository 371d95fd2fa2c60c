// A text file, which is one document.
import { isUtf8 } from 'node:buffer';
import { bytesOf, notUtf8, type Source } from './bytes.ts';
import type { DocumentPart } from './record.ts';

/** Number of characters per part of a text. */
const PART = 4 * 2 ** 20;

export async function* plainText(source: Source): AsyncGenerator<DocumentPart> {
  const { path } = source;
  let pieces: string[] = [];
  let length = 0;
  let isEmpty = true;
  const part = (isEnd: boolean): DocumentPart => ({ record: { text: pieces.join('') }, isEnd, place: path });
  for await (const piece of decoded(source)) {
    if (length >= PART) {
      yield part(false);
      pieces = [];
      length = 0;
    }
    pieces.push(piece);
    length += piece.length;
    isEmpty &&= piece === '';
  }
  if (isEmpty) throw new Error(`${path}: is empty`);
  yield part(true);
}

/** Yields the text, without a byte order mark. */
async function* decoded(source: Source): AsyncGenerator<string> {
  const decoder = new TextDecoder('utf-8', { fatal: true });
  let line = 1;
  let isBegin = true;
  for await (const piece of bytesOf(source)) {
    try {
      yield decoder.decode(piece, { stream: true });
    } catch (error) {
      throw notUtf8(isBegin ? piece : Buffer.alloc(2), `${source.path}:${line + linesBefore(piece)}`, error);
    }
    for (let at = piece.indexOf(10); at >= 0; at = piece.indexOf(10, at + 1)) line += 1;
    isBegin = false;
  }
  try {
    decoder.decode();
  } catch (error) {
    throw notUtf8(Buffer.alloc(2), `${source.path}:${line}`, error);
  }
}

/**
 * Number of line ends before the first bad byte of a piece. A character that began in the piece before counts as bad, since it is on the
 * same line.
 */
function linesBefore(piece: Buffer): number {
  let lines = 0;
  for (let begin = 0; ; lines++) {
    const end = piece.indexOf(10, begin);
    const line = piece.subarray(begin, end < 0 ? piece.length : end);
    if (end < 0 || !isUtf8(lines === 0 ? line.subarray(continuation(line)) : line)) return lines;
    begin = end + 1;
  }
}

/** Number of bytes at the beginning of a piece that continue a character. */
function continuation(piece: Buffer): number {
  let count = 0;
  while (count < 3 && count < piece.length && (piece[count]! & 0xc0) === 0x80) count += 1;
  return count;
}
