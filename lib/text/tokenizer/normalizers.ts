// Normalizers of tokenizer.json, with the semantics of HuggingFace's crate `tokenizers`.
import { checkGrowth } from './budget.ts';
import { toByteCharacters } from './byte_level.ts';
import { booleanOf, type Fields, fieldsOf, listOf, refuseOthers, stringOf } from './fields.ts';
import { countPart, type PartContext, readPattern } from './pattern.ts';
import { type Piece, Rewriter } from './piece.ts';
import { precompiled } from './precompiled.ts';
import type { Normalizer } from './steps.ts';

type Reader = (fields: Fields, where: string, context: PartContext) => Normalizer;

const READERS: Record<string, Reader> = {
  Sequence(fields, where, context) {
    refuseOthers(fields, where, ['type', 'normalizers']);
    const all = listOf(fields, 'normalizers', where).map((one, i) =>
      readNormalizer(one, `${where}.normalizers[${i}]`, context),
    );
    return (piece) =>
      all.reduce((now, normalize) => {
        const next = normalize(now);
        checkGrowth(piece.text.length, next.text.length, where);
        return next;
      }, piece);
  },
  NFC: simple(unicodeForm('NFC')),
  NFD: simple(unicodeForm('NFD')),
  NFKC: simple(unicodeForm('NFKC')),
  NFKD: simple(unicodeForm('NFKD')),
  Lowercase: simple((piece) => lowercase(piece)),
  StripAccents: simple(without(/\p{M}/u)),
  Nmt: simple((piece) => nmtSpaces(nmtControls(piece))),
  ByteLevel: simple(toByteCharacters),
  Strip(fields, where) {
    refuseOthers(fields, where, ['type', 'strip_left', 'strip_right']);
    const left = booleanOf(fields, 'strip_left', where);
    const right = booleanOf(fields, 'strip_right', where);
    return (piece) => {
      const end = right ? piece.text.search(/\p{White_Space}*$/u) : piece.text.length;
      const begin = left ? Math.min(end, /^\p{White_Space}*/u.exec(piece.text)![0].length) : 0;
      return piece.slice(begin, end);
    };
  },
  Prepend(fields, where) {
    refuseOthers(fields, where, ['type', 'prepend']);
    const prefix = stringOf(fields, 'prepend', where);
    return (piece) => piece.prepend(prefix);
  },
  Replace(fields, where, context) {
    refuseOthers(fields, where, ['type', 'pattern', 'content']);
    const content = stringOf(fields, 'content', where);
    const { String: literal } = fieldsOf(fields.pattern, `${where}.pattern`);
    if (typeof literal === 'string' && literal.length === 1 && content.length === 1) {
      return (piece) => piece.withUnits(piece.text.replaceAll(literal, () => content));
    }
    const pattern = readPattern(fields.pattern, `${where}.pattern`, context);
    return (piece) => {
      let rewriter: Rewriter | null = null;
      let done = 0;
      pattern(piece.text, (begin, end) => {
        rewriter ??= new Rewriter(piece);
        rewriter.keep(done, begin);
        rewriter.put(content, begin, end);
        done = end;
      });
      return finish(rewriter, piece, done);
    };
  },
  Precompiled(fields, where) {
    refuseOthers(fields, where, ['type', 'precompiled_charsmap']);
    return precompiled(stringOf(fields, 'precompiled_charsmap', where), `${where}.precompiled_charsmap`);
  },
  BertNormalizer(fields, where) {
    refuseOthers(fields, where, ['type', 'clean_text', 'handle_chinese_chars', 'strip_accents', 'lowercase']);
    const lower = booleanOf(fields, 'lowercase', where);
    const steps: Normalizer[] = [];
    if (booleanOf(fields, 'clean_text', where)) steps.push(bertControls, bertSpaces);
    if (booleanOf(fields, 'handle_chinese_chars', where)) steps.push(spacesAroundChinese);
    if (booleanOf(fields, 'strip_accents', where, lower)) steps.push(unicodeForm('NFD'), without(/\p{Mn}/u));
    if (lower) steps.push(lowercase);
    return (piece) => steps.reduce((now, normalize) => normalize(now), piece);
  },
};

export function readNormalizer(value: unknown, where: string, context: PartContext): Normalizer {
  countPart(context, where);
  const fields = fieldsOf(value, where);
  const read = Object.hasOwn(READERS, String(fields.type)) ? READERS[String(fields.type)] : undefined;
  if (!read) throw new Error(`${where}: type ${JSON.stringify(fields.type)} is not supported`);
  return read(fields, where, context);
}

function simple(normalize: Normalizer): Reader {
  return (fields, where) => {
    refuseOthers(fields, where, ['type']);
    return normalize;
  };
}

function finish(rewriter: Rewriter | null, piece: Piece, done: number): Piece {
  if (!rewriter) return piece;
  rewriter.keep(done, piece.text.length);
  return rewriter.done();
}

/** Replaces each match of `found` by what `replace` makes of it. */
function replacing(found: RegExp, replace: (text: string) => string): Normalizer {
  return (piece) => {
    let rewriter: Rewriter | null = null;
    let done = 0;
    for (const { 0: text, index } of piece.text.matchAll(found)) {
      const other = replace(text);
      if (other === text) continue;
      rewriter ??= new Rewriter(piece);
      rewriter.keep(done, index);
      done = index + text.length;
      rewriter.put(other, index, done);
    }
    return finish(rewriter, piece, done);
  };
}

function without(character: RegExp): Normalizer {
  return replacing(new RegExp(character, 'gu'), () => '');
}

/** A normal form of Unicode. Characters that are composed change together, and all of them end where the last one does. */
function unicodeForm(form: 'NFC' | 'NFD' | 'NFKC' | 'NFKD'): Normalizer {
  return (piece) => {
    const { text } = piece;
    const whole = text.normalize(form);
    if (whole === text) return piece;
    return byClusters(piece, CLUSTER, form, whole) ?? byClusters(piece, COARSE_CLUSTER, form, whole)!;
  };
}

/** A character and all that may be composed with it: marks, vowels and finals of Hangul, halfwidth forms of these. */
const CLUSTER = /[\s\S][\p{M}\u1160-\u11ff\ud7b0-\ud7ff\uff9e\uff9f\uffa0-\uffdc]*/gu;
/** A coarser cluster: no character below U+0300 is composed with those before it. */
const COARSE_CLUSTER = /[\s\S][^\0-\u02ff]*/gu;

/** Null if the clusters, each normalized alone, do not make the whole. */
function byClusters(piece: Piece, clusters: RegExp, form: string, whole: string): Piece | null {
  const rewriter = new Rewriter(piece);
  let done = 0;
  let at = 0;
  for (const { 0: text, index } of piece.text.matchAll(clusters)) {
    const other = text.normalize(form);
    if (!whole.startsWith(other, at)) return null;
    at += other.length;
    if (other === text) continue;
    rewriter.keep(done, index);
    done = index + text.length;
    rewriter.put(other, index, done);
  }
  if (at !== whole.length) return null;
  rewriter.keep(done, piece.text.length);
  return rewriter.done();
}

/** Character by character, so that a capital sigma at the end of a word also becomes the usual small one. */
const lowercase = replacing(/\p{Changes_When_Lowercased}/gu, (character) => character.toLowerCase());

// biome-ignore lint/suspicious/noControlCharactersInRegex: these are meant
const nmtControls = without(/[\u0001-\u0008\u000b\u000e-\u001f\u007f\u008f\u009f]/u);
const nmtSpaces = replacing(/[\t\n\f\r\u1680\u200b-\u200f\u2028\u2029\u2581\ufeff\ufffd]/gu, () => ' ');

/** Control, format, unassigned and private characters, except tab and line ends. */
const bertControls = without(/[\0\ufffd]|(?![\t\n\r])\p{C}/u);
const bertSpaces = replacing(/\p{White_Space}/gu, () => ' ');

const CHINESE =
  /[\u4e00-\u9fff\u3400-\u4dbf\u{20000}-\u{2a6df}\u{2a700}-\u{2b73f}\u{2b740}-\u{2b81f}\u{2b920}-\u{2ceaf}\uf900-\ufaff\u{2f800}-\u{2fa1f}]/gu;
const spacesAroundChinese = replacing(CHINESE, (character) => ` ${character} `);
