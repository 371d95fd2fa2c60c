// Encoding by bytes: one id per byte of UTF-8.

import type { Encoded } from './encoder.ts';
import { unitsAt } from './piece.ts';

export function encodeBytes(text: string): Encoded {
  const ids = Int32Array.from(new TextEncoder().encode(text));
  const ends = new Int32Array(ids.length);
  let at = 0;
  for (let i = 0; i < text.length; ) {
    const end = i + unitsAt(text, i);
    const code = text.charCodeAt(i);
    const numBytes = end - i === 2 ? 4 : code < 0x80 ? 1 : code < 0x800 ? 2 : 3;
    ends.fill(end, at, at + numBytes);
    at += numBytes;
    i = end;
  }
  return { ids, ends };
}

/** Keeps a byte order mark. Ids that are no bytes are skipped. */
export function decodeBytes(ids: ArrayLike<number>): string {
  const bytes = Array.from(ids).filter((id) => id >= 0 && id < 256);
  return new TextDecoder('utf-8', { ignoreBOM: true }).decode(Uint8Array.from(bytes));
}
