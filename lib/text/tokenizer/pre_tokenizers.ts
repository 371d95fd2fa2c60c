// Pre-tokenizers of tokenizer.json, with the semantics of HuggingFace's crate `tokenizers`.
import { toByteCharacters } from './byte_level.ts';
import { booleanOf, type Fields, fieldsOf, listOf, refuseOthers, stringOf } from './fields.ts';
import { countPart, literalPattern, type PartContext, readPattern } from './pattern.ts';
import { unitsAt } from './piece.ts';
import {
  BEHAVIORS,
  type Behavior,
  GPT2,
  NUMBER,
  PUNCTUATION,
  splitting,
  WHITE_SPACE,
  WORDS_AND_SIGNS,
  whole,
} from './splitting.ts';
import type { PreTokenizer } from './steps.ts';

type Reader = (fields: Fields, where: string, context: PartContext) => PreTokenizer;

const READERS: Record<string, Reader> = {
  Sequence(fields, where, context) {
    refuseOthers(fields, where, ['type', 'pretokenizers']);
    const all = listOf(fields, 'pretokenizers', where).map((one, i) =>
      readPreTokenizer(one, `${where}.pretokenizers[${i}]`, context),
    );
    return all.reduceRight<PreTokenizer>(
      (next, first) => (piece, emit) => first(piece, (part) => next(part, emit)),
      (piece, emit) => emit(piece),
    );
  },
  ByteLevel(fields, where) {
    refuseOthers(fields, where, ['type', 'add_prefix_space', 'trim_offsets', 'use_regex']);
    const cut = booleanOf(fields, 'use_regex', where, true) ? splitting(GPT2, 'Isolated') : whole;
    const prefixed = booleanOf(fields, 'add_prefix_space', where);
    return (piece, emit) => {
      const from = prefixed && !piece.text.startsWith(' ') ? piece.prepend(' ') : piece;
      cut(from, (part) => emit(toByteCharacters(part)));
    };
  },
  Split(fields, where, context) {
    refuseOthers(fields, where, ['type', 'pattern', 'behavior', 'invert']);
    const pattern = readPattern(fields.pattern, `${where}.pattern`, context);
    return splitting(pattern, behaviorOf(fields, where), booleanOf(fields, 'invert', where));
  },
  Punctuation(fields, where) {
    refuseOthers(fields, where, ['type', 'behavior']);
    return splitting(PUNCTUATION, behaviorOf(fields, where, 'Isolated'));
  },
  Digits(fields, where) {
    refuseOthers(fields, where, ['type', 'individual_digits']);
    return splitting(NUMBER, booleanOf(fields, 'individual_digits', where) ? 'Isolated' : 'Contiguous');
  },
  Metaspace(fields, where) {
    refuseOthers(fields, where, ['type', 'replacement', 'prepend_scheme', 'add_prefix_space', 'split', 'str_rep']);
    const replacement = stringOf(fields, 'replacement', where);
    if (replacement.length !== 1) throw new Error(`${where}: replacement must be one character below U+10000`);
    const scheme = schemeOf(fields, where);
    const cut = booleanOf(fields, 'split', where, true)
      ? splitting(literalPattern(replacement), 'MergedWithNext')
      : whole;
    return (piece, emit) => {
      const from = piece.withUnits(piece.text.replaceAll(' ', replacement));
      const isFirst = scheme === 'always' || (scheme === 'first' && piece.startAt(0) === 0);
      cut(isFirst && !from.text.startsWith(replacement) ? from.prepend(replacement) : from, emit);
    };
  },
  Whitespace: simple(splitting(WORDS_AND_SIGNS, 'Removed', true)),
  WhitespaceSplit: simple(splitting(WHITE_SPACE, 'Removed')),
  BertPreTokenizer: simple((piece, emit) =>
    splitting(WHITE_SPACE, 'Removed')(piece, (part) => splitting(PUNCTUATION, 'Isolated')(part, emit)),
  ),
  CharDelimiterSplit(fields, where) {
    refuseOthers(fields, where, ['type', 'delimiter']);
    const delimiter = stringOf(fields, 'delimiter', where);
    if ([...delimiter].length !== 1) throw new Error(`${where}: delimiter must be one character`);
    return splitting(literalPattern(delimiter), 'Removed');
  },
  FixedLength(fields, where) {
    refuseOthers(fields, where, ['type', 'length']);
    const { length = 5 } = fields as { length?: unknown };
    if (!Number.isInteger(length) || (length as number) < 1) {
      throw new Error(`${where}: length must be a positive integer, got ${JSON.stringify(length)}`);
    }
    return (piece, emit) => {
      let begin = 0;
      let count = 0;
      for (let i = 0; i < piece.text.length; ) {
        i += unitsAt(piece.text, i);
        count += 1;
        if (count < (length as number) && i < piece.text.length) continue;
        emit(piece.slice(begin, i));
        begin = i;
        count = 0;
      }
    };
  },
};

export function readPreTokenizer(value: unknown, where: string, context: PartContext): PreTokenizer {
  countPart(context, where);
  const fields = fieldsOf(value, where);
  const read = Object.hasOwn(READERS, String(fields.type)) ? READERS[String(fields.type)] : undefined;
  if (!read) throw new Error(`${where}: type ${JSON.stringify(fields.type)} is not supported`);
  return read(fields, where, context);
}

function simple(preTokenizer: PreTokenizer): Reader {
  return (fields, where) => {
    refuseOthers(fields, where, ['type']);
    return preTokenizer;
  };
}

function behaviorOf(fields: Fields, where: string, fallback?: Behavior): Behavior {
  const name = stringOf(fields, 'behavior', where, fallback);
  const behavior = BEHAVIORS.find((one) => one.toLowerCase() === name.toLowerCase().replaceAll('_', ''));
  if (!behavior)
    throw new Error(`${where}: behavior must be one of ${BEHAVIORS.join(', ')}, got ${JSON.stringify(name)}`);
  return behavior;
}

function schemeOf(fields: Fields, where: string): 'always' | 'first' | 'never' {
  const scheme = stringOf(fields, 'prepend_scheme', where, fields.add_prefix_space === false ? 'never' : 'always');
  if (scheme !== 'always' && scheme !== 'first' && scheme !== 'never') {
    throw new Error(`${where}: prepend_scheme must be always, first or never, got ${JSON.stringify(scheme)}`);
  }
  if (fields.add_prefix_space === false && scheme !== 'never') {
    throw new Error(`${where}: add_prefix_space is false, prepend_scheme ${JSON.stringify(scheme)}`);
  }
  return scheme;
}
