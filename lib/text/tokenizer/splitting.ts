// Splits pieces at delimiters, by the behaviors of tokenizer.json.
import { type Pattern, regexPattern } from './pattern.ts';
import type { PreTokenizer } from './steps.ts';

export const BEHAVIORS = ['Removed', 'Isolated', 'MergedWithPrevious', 'MergedWithNext', 'Contiguous'] as const;
export type Behavior = (typeof BEHAVIORS)[number];

const WORD = '\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}\\p{Join_Control}';
export const WORDS_AND_SIGNS = regexPattern(new RegExp(`[${WORD}]+|[^${WORD}\\p{White_Space}]+`, 'gu'));
export const WHITE_SPACE = regexPattern(/\p{White_Space}/gu);
export const NUMBER = regexPattern(/\p{N}/gu);
export const PUNCTUATION = regexPattern(/[!-/:-@[-`{-~\p{P}]/gu);
/** The pattern by which GPT-2's tokenizer splits. */
export const GPT2 = regexPattern(
  /'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\p{White_Space}\p{L}\p{N}]+|\p{White_Space}+(?!\P{White_Space})|\p{White_Space}+/gu,
);

export const whole: PreTokenizer = (piece, emit) => {
  if (piece.text !== '') emit(piece);
};

/** @param invert whether the text between matches is the delimiter */
export function splitting(pattern: Pattern, behavior: Behavior, invert = false): PreTokenizer {
  return (piece, emit) => {
    const { text } = piece;
    const cut = (begin: number, end: number) => {
      if (end > begin) emit(piece.slice(begin, end));
    };
    const segments = joining(behavior, cut);
    let done = 0;
    pattern(text, (begin, end) => {
      if (begin !== done) segments.next(done, begin, invert);
      segments.next(begin, end, !invert);
      done = end;
    });
    if (done !== text.length) segments.next(done, text.length, invert);
    segments.end();
  };
}

interface Joining {
  next(begin: number, end: number, isDelimiter: boolean): void;
  end(): void;
}

/** Returns a function that takes the segments of a text from left to right and cuts where `behavior` does. */
function joining(behavior: Behavior, cut: (begin: number, end: number) => void): Joining {
  let [from, to] = [0, 0]; // not cut yet
  let wasDelimiter = false;
  let isFirst = true;
  const joins = (isDelimiter: boolean): boolean => {
    if (isFirst) return false;
    if (behavior === 'Contiguous') return isDelimiter === wasDelimiter;
    if (behavior === 'MergedWithPrevious') return isDelimiter && !wasDelimiter;
    return behavior === 'MergedWithNext' && !isDelimiter && wasDelimiter;
  };
  return {
    next(begin, end, isDelimiter) {
      if (behavior === 'Removed' && isDelimiter) return;
      if (!joins(isDelimiter)) {
        cut(from, to);
        from = begin;
      }
      to = end;
      wasDelimiter = isDelimiter;
      isFirst = false;
    },
    end: () => cut(from, to),
  };
}
