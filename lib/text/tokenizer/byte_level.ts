// Bytes of UTF-8 as printable characters, like those of GPT-2's tokenizer.
import { Piece, unitsAt } from './piece.ts';

const isPrintable = (byte: number) => (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;

/** The character for each byte: itself if it is printable, otherwise the next unused one from U+0100 on. */
export const BYTE_CHARACTERS: readonly string[] = (() => {
  let others = 0;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(isPrintable(byte) ? byte : 0x100 + others++));
})();

const utf8 = new TextEncoder();

/** The bytes of a text as printable characters. Each byte of a character ends where the character does. */
export function toByteCharacters(piece: Piece): Piece {
  const { text } = piece;
  if (/^[!-~]*$/.test(text)) return piece;
  if (/^[\0-\x7f]*$/.test(text)) {
    let mapped = '';
    for (let i = 0; i < text.length; i++) mapped += BYTE_CHARACTERS[text.charCodeAt(i)];
    return piece.withUnits(mapped);
  }
  const bytes = utf8.encode(text);
  const ends = new Int32Array(bytes.length);
  let mapped = '';
  for (const byte of bytes) mapped += BYTE_CHARACTERS[byte];
  let at = 0;
  for (let i = 0; i < text.length; ) {
    const units = unitsAt(text, i);
    const code = text.charCodeAt(i);
    const numBytes = units === 2 ? 4 : code < 0x80 ? 1 : code < 0x800 ? 2 : 3;
    ends.fill(piece.endAt(i), at, at + numBytes);
    at += numBytes;
    i += units;
  }
  return new Piece(mapped, piece.start, ends);
}
