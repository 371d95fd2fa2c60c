// Special tokens in texts. One of them ends an assistant's turn.

import type { AddedToken } from '../tokenizer/added_tokens.ts';

type Token = Pick<AddedToken, 'id' | 'content' | 'special'>;

export class SpecialTokens {
  readonly #special: string[];
  readonly #added: string[];
  readonly #isAdded: ReadonlySet<string>;
  /** The text of the token that ends documents; '' if there is none. */
  readonly endOfText: string;

  constructor(tokens: readonly Token[], endOfTextId: number | null) {
    const longestFirst = (a: string, b: string) => b.length - a.length;
    const all = tokens.filter(({ content }) => content.trim() !== '');
    this.endOfText = all.find(({ id }) => id === endOfTextId)?.content ?? '';
    this.#added = all.map(({ content }) => content).sort(longestFirst);
    this.#isAdded = new Set(this.#added.map((token) => token.trim()));
    this.#special = all
      .filter(({ special, id }) => special || id === endOfTextId)
      .map(({ content }) => content)
      .sort(longestFirst);
  }

  /** Whether there are no special tokens, as for bytes. */
  get isEmpty(): boolean {
    return this.#special.length === 0;
  }

  /** The special token at the end of a text, white space ignored; null if there is none. */
  endOf(text: string): string | null {
    const end = text.trimEnd();
    return this.#special.find((token) => end.endsWith(token)) ?? null;
  }

  /** The special or added token at the end of a text, white space ignored; null if there is none. */
  addedEndOf(text: string): string | null {
    const end = text.trimEnd();
    return this.endOf(end) ?? this.#added.find((token) => end.endsWith(token)) ?? null;
  }

  /** Removes special tokens, and added tokens in brackets, from a text. */
  without(text: string): string {
    let rest = text;
    for (const token of this.#added)
      if (this.#special.includes(token) || /^[<[]/.test(token)) rest = rest.replaceAll(token, ' ');
    return rest;
  }

  /** The white space and special token at `at` in a text; '' if something else is there. */
  nextIn(text: string, at: number): string {
    let begin = at;
    while (begin < text.length && /\s/.test(text[begin]!)) begin += 1;
    const token = this.#special.find((one) => text.startsWith(one, begin));
    return token === undefined ? '' : text.slice(at, begin + token.length);
  }

  /** A text up to and including its first special token; null if it has none. */
  upToFirst(text: string): string | null {
    let end = Number.POSITIVE_INFINITY;
    for (const token of this.#special) {
      const begin = text.indexOf(token);
      if (begin >= 0) end = Math.min(end, begin + token.length);
    }
    return end <= text.length ? text.slice(0, end) : null;
  }

  /** The end of text[begin, end) without the white space that a special token takes with it. */
  endIn(text: string, begin: number, end: number): number {
    if (!/\s/.test(text[end - 1]!)) return end;
    const token = text.slice(begin, end);
    return this.#isAdded.has(token.trim()) ? begin + token.trimEnd().length : end;
  }
}
