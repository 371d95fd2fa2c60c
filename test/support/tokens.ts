// Tokens of tokenizers that a test makes of a model and a few parts.
import { Encoder } from '../../lib/text/tokenizer/encoder.ts';

export type Json = Record<string, unknown>;

/** Tokens and the places where they end, of a tokenizer with nothing but a model, and what is given besides. */
export function tokens(model: Json, text: string, others: Json = {}): [token: string, end: number][] {
  const encoder = new Encoder({ model, ...others });
  const names = new Map([...encoder.model.vocabulary].map(([token, id]) => [id, token]));
  for (const { id, content } of encoder.addedTokens) names.set(id, content);
  const { ids, ends } = encoder.encode(text);
  return [...ids].map((id, i) => [names.get(id)!, ends[i]!]);
}
export const names = (model: Json, text: string, others: Json = {}) =>
  tokens(model, text, others).map(([token]) => token);
export const vocabulary = (...all: string[]) => Object.fromEntries(all.map((token, id) => [token, id]));
