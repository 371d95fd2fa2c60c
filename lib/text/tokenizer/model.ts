// The model of a tokenizer: from words to ids.

export interface Model {
  /** Tokens and their ids, for decoding. */
  readonly vocabulary: ReadonlyMap<string, number>;
  /** Whether the time for a word is proportional to its length. */
  readonly isQuick: boolean;
  /** Emits the tokens of a word, each with the unit of the word at which it ends. Throws for a character that has no token. */
  tokenize(word: string, emit: (id: number, end: number) => void): void;
}
