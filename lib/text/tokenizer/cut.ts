// Finds where a text can be cut so that the ids of its parts together are those of the whole.

/** Number of characters on either side of a cut with which it is checked. */
const CONTEXT = 512;
/** Number of characters at the end of a text in which a cut is searched for. */
const SEARCHED = 4096;
/** Places where pre-tokenizers split whatever is around them. */
const BETWEEN_WORDS = /(?<=\p{L})(?= \p{L})|(?<=\S\n)(?=\p{L})/gu;

type Encode = (text: string) => Promise<ArrayLike<number>>;

/**
 * The last place between two words that has more than CONTEXT characters after it. 0 if the check fails, as for a tokenizer that puts a
 * space before each text.
 */
export async function lastCut(text: string, encode: Encode): Promise<number> {
  let found = 0;
  for (const { index } of text.slice(0, -CONTEXT).slice(-SEARCHED).matchAll(BETWEEN_WORDS)) {
    found = index + Math.max(0, text.length - CONTEXT - SEARCHED);
  }
  return found > 0 && (await isCut(text, found, encode)) ? found : 0;
}

/** Whether the ids of a text are those of its parts before and after `at`, judged by the characters around it. */
async function isCut(text: string, at: number, encode: Encode): Promise<boolean> {
  const [left, right] = [text.slice(Math.max(0, at - CONTEXT), at), text.slice(at, at + CONTEXT)];
  const [whole, before, after] = [await encode(left + right), await encode(left), await encode(right)];
  return (
    whole.length === before.length + after.length &&
    Array.from(whole).every((id, i) => id === (i < before.length ? before[i] : after[i - before.length]))
  );
}
