// What an untrusted tokenizer.json may ask for. Public ones stay far below all of it.

/** Normalizers, pre-tokenizers and decoders, each counted with those inside of others. */
export const MAX_PARTS = 64;
/** UTF-16 units of an added token. */
export const MAX_ADDED_TOKEN = 4096;
/** Special tokens on one side of a text. */
export const MAX_SURROUND = 64;
/** Units of the longest token, and characters of a word, up to which a model that searches is quick: longer ones go to another thread. */
export const QUICK_TOKEN = 512;
export const QUICK_WORD = 1024;

/** How long a text may become that has `length` units: Unicode's forms make 18 of one at most. */
export const maxLength = (length: number): number => 64 * length + 4096;

export function checkGrowth(before: number, after: number, what: string): void {
  if (after > maxLength(before))
    throw new RangeError(`tokenizer: ${what} makes more than ${maxLength(before)} characters of ${before}`);
}
