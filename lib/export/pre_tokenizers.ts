// How a tokenizer.json cuts a text into words, by llama.cpp's names for it (tokenizer.ggml.pre).
import { brief } from '../brief.ts';

/** A name there, and whether a word that is a token as a whole is not merged (ignore_merges), which belongs to the name. */
interface Cut {
  name: string;
  ignoresMerges: boolean;
}

/** What the published expressions have in common: contractions in any case, a word with a mark before it, and what follows numbers. */
const CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)";
const WORD = '[^\\r\\n\\p{L}\\p{N}]?\\p{L}+';
const REST = ' ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+';
const MARKED = '[^\\r\\n\\p{L}\\p{N}]?';
const UPPER = '[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]';
const LOWER = '[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]';
const CASED_REST = ' ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+';

const threeDigits = `${CONTRACTIONS}|${WORD}|\\p{N}{1,3}|${REST}`;
const oneDigit = `${CONTRACTIONS}|${WORD}|\\p{N}|${REST}`;
const cased = (ending: string, digits: string) =>
  `${MARKED}${UPPER}*${LOWER}+${ending}|${MARKED}${UPPER}+${LOWER}*${ending}|${digits}|${CASED_REST}`;

/** By the expression of a Split, before bytes become characters. */
const EXPRESSIONS = new Map<string, readonly Cut[]>([
  [
    threeDigits,
    [
      { name: 'llama-bpe', ignoresMerges: true },
      { name: 'dbrx', ignoresMerges: false },
    ],
  ],
  [oneDigit, [{ name: 'qwen2', ignoresMerges: false }]],
  [cased('', '\\p{N}'), [{ name: 'tekken', ignoresMerges: true }]],
  [cased(`${CONTRACTIONS}?`, '\\p{N}{1,3}'), [{ name: 'gpt-4o', ignoresMerges: false }]],
]);
/** GPT-2's own expression, in ByteLevel. */
const BYTE_LEVEL: readonly Cut[] = [{ name: 'gpt-2', ignoresMerges: false }];
/** The same after each digit alone. */
const DIGITS: readonly Cut[] = [{ name: 'smollm', ignoresMerges: false }];

interface Step {
  type?: unknown;
  add_prefix_space?: unknown;
  use_regex?: unknown;
  individual_digits?: unknown;
  pattern?: { Regex?: unknown };
  behavior?: unknown;
  invert?: unknown;
  pretokenizers?: unknown;
}

/**
 * llama.cpp's name for a pre_tokenizer.
 * @throws RangeError for one that has none: with another, ids would differ
 */
export function preTokenizerOf(preTokenizer: unknown, ignoresMerges: boolean): string {
  const cuts = cutsOf(preTokenizer);
  const fitting = cuts.find((cut) => cut.ignoresMerges === ignoresMerges);
  if (fitting) return fitting.name;
  if (cuts.length > 0) {
    throw new RangeError(
      `export: tokenizer.json: model.ignore_merges ${ignoresMerges}: llama.cpp's '${cuts[0]!.name}' takes ${!ignoresMerges}`,
    );
  }
  throw new RangeError(
    `export: tokenizer.json: pre_tokenizer ${brief(preTokenizer)}: llama.cpp is known to have no such one, and ids would differ with another`,
  );
}

function cutsOf(preTokenizer: unknown): readonly Cut[] {
  const whole = (preTokenizer ?? {}) as Step;
  const steps =
    whole.type === 'Sequence' && Array.isArray(whole.pretokenizers) ? (whole.pretokenizers as Step[]) : [whole];
  const bytes = steps.at(-1)!;
  if (bytes.type !== 'ByteLevel' || bytes.add_prefix_space !== false) return [];
  const usesExpression = bytes.use_regex !== false;
  if (steps.length === 1) return usesExpression ? BYTE_LEVEL : [];
  const [first] = steps as [Step];
  if (steps.length !== 2) return [];
  if (first.type === 'Digits') return first.individual_digits === true && usesExpression ? DIGITS : [];
  const isSplit = first.type === 'Split' && first.behavior === 'Isolated' && !first.invert && !usesExpression;
  return isSplit ? (EXPRESSIONS.get(String(first.pattern?.Regex)) ?? []) : [];
}
