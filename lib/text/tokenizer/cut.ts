// Where a text may be cut so that the ids of its parts, one after another, are those of the whole.

/** Characters on either side of a cut that it is checked on. */
const CONTEXT = 512;
/** Characters at a text's end in which a place to cut it is looked for. */
const SEARCHED = 4096;
/** Where pre-tokenizers split whatever stands around. */
const BETWEEN_WORDS = /(?<=\p{L})(?= \p{L})|(?<=\S\n)(?=\p{L})/gu;

type Encode = (text: string) => Promise<ArrayLike<number>>;

/**
 * The last place between two words that more than the context follows. A tokenizer for which it is none (one that puts a space before each
 * text) fails the check: 0.
 */
export async function lastCut(text: string, encode: Encode): Promise<number> {
  let found = 0;
  for (const { index } of text.slice(0, -CONTEXT).slice(-SEARCHED).matchAll(BETWEEN_WORDS)) {
    found = index + Math.max(0, text.length - CONTEXT - SEARCHED);
  }
  return found > 0 && (await isCut(text, found, encode)) ? found : 0;
}

/** Whether a text's ids are those of its parts before and after `at`, as far as the characters around it tell. */
async function isCut(text: string, at: number, encode: Encode): Promise<boolean> {
  const [left, right] = [text.slice(Math.max(0, at - CONTEXT), at), text.slice(at, at + CONTEXT)];
  const [whole, before, after] = [await encode(left + right), await encode(left), await encode(right)];
  return (
    whole.length === before.length + after.length &&
    Array.from(whole).every((id, i) => id === (i < before.length ? before[i] : after[i - before.length]))
  );
}
