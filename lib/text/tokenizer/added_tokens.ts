// Added tokens: tokens that are searched for in a text before any other step.
import { MAX_ADDED_TOKEN } from './budget.ts';
import { booleanOf, fieldsOf, refuseOthers, stringOf } from './fields.ts';
import { Piece } from './piece.ts';
import type { Normalizer } from './steps.ts';
import { checkId } from './vocabulary.ts';

export interface AddedToken {
  id: number;
  content: string;
  /** Whether it matches only if no word character is before or after it. */
  single_word: boolean;
  /** Whether it takes the white space before it (lstrip) or after it (rstrip). */
  lstrip: boolean;
  rstrip: boolean;
  /** Whether it is searched for in the normalized text. */
  normalized: boolean;
  special: boolean;
}

const FLAGS = ['single_word', 'lstrip', 'rstrip', 'normalized', 'special'] as const;

/**
 * Reads added tokens. Throws unless their ids are those that HuggingFace's crate assigns: a token of the model keeps its id, others follow
 * the vocabulary.
 * @param value the list of tokenizer.json
 */
export function readAddedTokens(value: unknown, vocabulary: ReadonlyMap<string, number>): AddedToken[] {
  if (value === undefined || value === null) return [];
  if (!Array.isArray(value)) throw new Error('added_tokens must be a list');
  const ids = new Map<string, number>();
  let last = -1;
  const tokens = value.map((one, i) => {
    const where = `added_tokens[${i}]`;
    const fields = fieldsOf(one, where);
    refuseOthers(fields, where, ['id', 'content', ...FLAGS]);
    const content = stringOf(fields, 'content', where);
    const id = checkId(fields.id, content, where);
    if (content.length > MAX_ADDED_TOKEN)
      throw new Error(`${where}: has ${content.length} characters, more than ${MAX_ADDED_TOKEN}`);
    const flags = Object.fromEntries(
      FLAGS.map((name) => [name, booleanOf(fields, name, where, name === 'normalized' ? !fields.special : false)]),
    ) as Record<(typeof FLAGS)[number], boolean>;
    const own = ids.get(content) ?? vocabulary.get(content) ?? Math.max(last + 1, vocabulary.size);
    if (content !== '' && own !== id) {
      throw new Error(
        `${where}: ${JSON.stringify(content)} has id ${id} there, and ${own} by its place in the vocabulary`,
      );
    }
    ids.set(content, id);
    last = Math.max(last, id);
    return { id, content, ...flags };
  });
  return tokens.filter(({ content }) => content !== '');
}

interface Node {
  readonly next: Map<number, Node>;
  token: AddedToken | null;
}

const WORD_BEFORE = /[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]$/u;
const WORD_AFTER = /^[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]/u;
const SPACE = /\p{White_Space}/u;

/** Finds tokens in a text: the leftmost first, and the longest of those that begin at one place. */
export class TokenFinder {
  readonly #root: Node = { next: new Map(), token: null };
  readonly #firsts: RegExp | null;

  /** @param normalize is applied to the tokens before they are searched for */
  constructor(tokens: readonly AddedToken[], normalize: Normalizer | null = null) {
    for (const token of tokens) {
      const content = normalize ? normalize(new Piece(token.content)).text : token.content;
      let node = this.#root;
      for (let i = 0; i < content.length; i++) {
        const next = node.next.get(content.charCodeAt(i)) ?? { next: new Map(), token: null };
        node.next.set(content.charCodeAt(i), next);
        node = next;
      }
      if (node === this.#root) {
        throw new Error(`added_tokens: ${JSON.stringify(token.content)} is empty when normalized`);
      }
      if (node.token && node.token.id !== token.id) {
        const names = `${JSON.stringify(node.token.content)} and ${JSON.stringify(token.content)}`;
        throw new Error(`added_tokens: ${names} are both ${JSON.stringify(content)} when normalized`);
      }
      node.token = token;
    }
    const firsts = [...this.#root.next.keys()].map((code) => `\\u${code.toString(16).padStart(4, '0')}`);
    this.#firsts = firsts.length > 0 ? new RegExp(`[${firsts.join('')}]`, 'g') : null;
  }

  /** Cuts a piece into tokens and the text between them. */
  split(piece: Piece, emit: (piece: Piece, token: AddedToken | null) => void): void {
    const { text } = piece;
    let done = 0;
    const cut = (begin: number, end: number, token: AddedToken | null) => {
      if (end > begin) emit(piece.slice(begin, end), token);
    };
    for (let at = 0; ; ) {
      const found = this.#find(text, at);
      if (!found) break;
      const { token } = found;
      let { begin, end } = found;
      at = end;
      if (
        token.single_word &&
        (WORD_BEFORE.test(text.slice(Math.max(0, begin - 2), begin)) || WORD_AFTER.test(text.slice(end, end + 2)))
      ) {
        continue;
      }
      while (token.lstrip && begin > done && SPACE.test(text[begin - 1]!)) begin -= 1;
      if (token.rstrip) while (end < text.length && SPACE.test(text[end]!)) end += 1;
      cut(done, begin, null);
      cut(begin, end, token);
      done = end;
    }
    cut(done, text.length, null);
  }

  #find(text: string, from: number): { begin: number; end: number; token: AddedToken } | null {
    if (!this.#firsts) return null;
    this.#firsts.lastIndex = from;
    for (let match = this.#firsts.exec(text); match; match = this.#firsts.exec(text)) {
      const begin = match.index;
      let node: Node | undefined = this.#root;
      let best: { begin: number; end: number; token: AddedToken } | null = null;
      for (let i = begin; node && i < text.length; i++) {
        node = node.next.get(text.charCodeAt(i));
        if (node?.token) best = { begin, end: i + 1, token: node.token };
      }
      if (best) return best;
    }
    return null;
  }
}
