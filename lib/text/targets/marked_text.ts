// A document's text with what is trained on.

/** Characters [begin, end), in UTF-16 units. */
export type Span = readonly [begin: number, end: number];

/** A document: its text, and the characters of it that are trained on, in order. */
export interface MarkedText {
  text: string;
  targets: Span[];
}

/** Where a document has the answer of a message: text[begin, end). */
export interface Turn {
  message: number;
  begin: number;
  end: number;
  /** Whether it ends with a token that ends generation. */
  isEnded: boolean;
}

/** A document with the answers that are trained on, in order. */
export interface Document {
  text: string;
  turns: Turn[];
}

/** Length of the longest common beginning of two texts. */
export function commonLength(a: string, b: string): number {
  const most = Math.min(a.length, b.length);
  let length = 0;
  while (length < most && a.charCodeAt(length) === b.charCodeAt(length)) length += 1;
  return length;
}
