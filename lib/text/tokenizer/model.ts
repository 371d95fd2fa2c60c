// The model of a tokenizer: words to ids.

export interface Model {
  /** Tokens and their ids; for decoding. */
  readonly vocabulary: ReadonlyMap<string, number>;
  /** Whether the time of a word grows as its length. */
  readonly isQuick: boolean;
  /** The tokens of a word, and for each the number of units of the word up to its end. Throws for a character that it has no token for. */
  tokenize(word: string, emit: (id: number, end: number) => void): void;
}
