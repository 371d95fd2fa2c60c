// Reads the bytes of a file, decompressed, and its lines.
import { createReadStream } from 'node:fs';
import { createGunzip } from 'node:zlib';

/** Longest line, or element of a list, in bytes. It is parsed at once, and several copies exist meanwhile. */
export const MAX_LINE = 2 ** 28;
/** Number of bytes that are read at once. */
const PIECE = 2 ** 18;

export interface Source {
  path: string;
  isGzip: boolean;
}

/** The first bytes of files that are not what their names say. */
const POINTER = Buffer.from('version https://git-lfs');
const GZIP = Buffer.of(0x1f, 0x8b);

function checkBegin(piece: Buffer): void {
  const begins = (mark: Buffer) => piece.subarray(0, mark.length).equals(mark);
  if (begins(POINTER)) throw new Error('is a pointer of git-lfs, run  git lfs pull  in its folder');
  if (begins(GZIP)) throw new Error('is compressed with gzip; end its name with .gz');
}

/** Yields the bytes of a file in pieces. Throws if it is a pointer of git-lfs, or compressed although its name does not say so. */
export async function* bytesOf({ path, isGzip }: Source): AsyncGenerator<Buffer> {
  const file = createReadStream(path, { highWaterMark: PIECE });
  const unpacked = isGzip ? file.pipe(createGunzip({ chunkSize: PIECE })) : file;
  if (unpacked !== file) file.on('error', (error) => unpacked.destroy(error));
  try {
    let isBegin = true;
    for await (const piece of unpacked as AsyncIterable<Buffer>) {
      if (isBegin) checkBegin(piece);
      isBegin = false;
      yield piece;
    }
  } catch (error) {
    throw new Error(`${path}: ${(error as Error).message}`, { cause: error });
  } finally {
    file.destroy();
    unpacked.destroy();
  }
}

/** Yields lines without their '\n', numbered from 1. Throws if a line is longer than MAX_LINE or is not UTF-8. */
export async function* linesOf(source: Source): AsyncGenerator<{ line: string; number: number }> {
  const { path } = source;
  let number = 1;
  let parts: Buffer[] = []; // of a line that has not ended
  let length = 0;
  const take = (part: Buffer) => {
    parts.push(part);
    length += part.length;
    if (length > MAX_LINE) throw new Error(`${path}:${number}: the line has more than ${MAX_LINE} bytes`);
  };
  const taken = () => {
    const line = textOf(parts.length === 1 ? parts[0]! : Buffer.concat(parts), `${path}:${number}`, number === 1);
    parts = [];
    length = 0;
    return { line, number: number++ };
  };
  for await (const piece of bytesOf(source)) {
    let begin = 0;
    for (let end = piece.indexOf(10); end >= 0; end = piece.indexOf(10, begin)) {
      take(piece.subarray(begin, end));
      yield taken();
      begin = end + 1;
    }
    if (begin < piece.length) take(piece.subarray(begin));
  }
  if (length > 0) yield taken();
}

/**
 * Decodes UTF-8.
 * @param isBegin whether a byte order mark is removed
 */
export function textOf(bytes: Uint8Array, place: string, isBegin: boolean): string {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: !isBegin }).decode(bytes);
  } catch (error) {
    throw notUtf8(bytes, place, error);
  }
}

export function notUtf8(bytes: Uint8Array, place: string, cause?: unknown): Error {
  const mark = (bytes[0]! << 8) | bytes[1]!;
  const found = mark === 0xfffe || mark === 0xfeff ? 'is UTF-16, not UTF-8 text' : 'is not UTF-8 text';
  return new Error(`${place}: ${found}`, { cause });
}
