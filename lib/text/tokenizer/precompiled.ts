// SentencePiece's table of replacements, a trie in a double array: https://github.com/s-yata/darts-clone

import { Rewriter, unitsAt } from './piece.ts';
import type { Normalizer } from './steps.ts';

/** @param base64 the trie's size in bytes (u32), the trie, and replacements that each end with a zero byte */
export function precompiled(base64: string, where: string): Normalizer {
  const bytes = Buffer.from(base64, 'base64');
  const trieBytes = bytes.length >= 4 ? bytes.readUInt32LE(0) : -1;
  if (trieBytes < 4 || trieBytes % 4 !== 0 || 4 + trieBytes > bytes.length) {
    throw new Error(`${where} is no table of replacements: it has ${bytes.length} bytes, its trie ${trieBytes}`);
  }
  const units = Uint32Array.from({ length: trieBytes / 4 }, (_, i) => bytes.readUInt32LE(4 + 4 * i));
  const replacements = bytes.subarray(4 + trieBytes);
  const offsetOf = (unit: number) => (unit >>> 10) << ((unit & 0x200) >>> 6);

  /** The replacement of the shortest prefix of `text` that the table has; null if it has none. */
  const shortest = (text: string): string | null => {
    let at = offsetOf(units[0]!);
    for (const byte of Buffer.from(text, 'utf8')) {
      if (byte === 0) return null;
      at ^= byte;
      const unit = units[at] ?? 0;
      if ((unit & 0x800000ff) >>> 0 !== byte) return null;
      at ^= offsetOf(unit);
      if ((unit >>> 8) & 1) {
        const begin = (units[at] ?? 0) & 0x7fffffff;
        const end = replacements.indexOf(0, begin);
        return replacements.toString('utf8', begin, end < 0 ? replacements.length : end);
      }
    }
    return null;
  };
  const known = new Map<string, string | null>();
  const replacementOf = (text: string): string | null => {
    let found = known.get(text);
    if (found !== undefined) return found;
    if (known.size >= 65_536) known.clear();
    found = shortest(text);
    known.set(text, found);
    return found;
  };

  return (piece) => {
    const { text } = piece;
    const rewriter = new Rewriter(piece);
    let done = 0;
    const put = (other: string, begin: number, end: number) => {
      rewriter.keep(done, begin);
      rewriter.put(other, begin, end);
      done = end;
    };
    // Like HuggingFace's crate, tries short graphemes as a whole first: the replacement of a prefix then replaces the whole grapheme.
    for (const [begin, end] of graphemes(text)) {
      const grapheme = text.slice(begin, end);
      const whole = end - begin < 6 && Buffer.byteLength(grapheme) < 6 ? replacementOf(grapheme) : null;
      if (whole !== null) {
        put(whole, begin, end);
        continue;
      }
      for (let i = begin; i < end; ) {
        const next = i + unitsAt(text, i);
        const one = replacementOf(text.slice(i, next));
        if (one !== null) put(one, i, next);
        i = next;
      }
    }
    rewriter.keep(done, text.length);
    return rewriter.done();
  };
}

const segmenter = new Intl.Segmenter(undefined, { granularity: 'grapheme' });

/** The bounds of graphemes. Between two ASCII characters there is always one, except within CR LF. */
function* graphemes(text: string): Generator<readonly [begin: number, end: number]> {
  for (const { 0: run, index } of text.matchAll(/[\0-\x7f]+(?![^\0-\x7f])|[\0-\x7f]?[^\0-\x7f]+/gu)) {
    if (run.charCodeAt(run.length - 1) < 0x80) {
      for (let i = 0; i < run.length; ) {
        const next = i + (run.startsWith('\r\n', i) ? 2 : 1);
        yield [index + i, index + next];
        i = next;
      }
    } else {
      for (const { segment, index: at } of segmenter.segment(run)) {
        yield [index + at, index + at + segment.length];
      }
    }
  }
}
