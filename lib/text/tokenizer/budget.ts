// Limits for an untrusted tokenizer.json. Public ones stay far below all of them.

/** Largest number of normalizers, pre-tokenizers and decoders, each counted together with those inside others. */
export const MAX_PARTS = 64;
/** Longest added token, in UTF-16 units. */
export const MAX_ADDED_TOKEN = 4096;
/** Largest number of special tokens on one side of a text. */
export const MAX_SURROUND = 64;
/**
 * Largest token in units, and longest word in characters, for which models that search are fast enough. Beyond them texts are encoded on
 * another thread.
 */
export const QUICK_TOKEN = 512;
export const QUICK_WORD = 1024;

/** The length that a text of `length` units may grow to. Unicode's normal forms make at most 18 units of one. */
const maxLength = (length: number): number => 64 * length + 4096;

export function checkGrowth(before: number, after: number, what: string): void {
  if (after > maxLength(before))
    throw new RangeError(`tokenizer: ${what} makes more than ${maxLength(before)} characters of ${before}`);
}
