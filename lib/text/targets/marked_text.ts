// A document's text, and which parts of it are trained on.

/** A range [begin, end) of UTF-16 units. */
export type Span = readonly [begin: number, end: number];

/** A document: its text, and the spans that are trained on, in order. */
export interface MarkedText {
  text: string;
  targets: Span[];
}

/** The place of a message's answer in a document: text[begin, end). */
export interface Turn {
  message: number;
  begin: number;
  end: number;
  /** Whether the answer ends with a token that ends generation. */
  isEnded: boolean;
}

/** A document and the answers in it that are trained on, in order. */
export interface Document {
  text: string;
  turns: Turn[];
}

/** The length of the longest common prefix of two texts. */
export function commonLength(a: string, b: string): number {
  const most = Math.min(a.length, b.length);
  let length = 0;
  while (length < most && a.charCodeAt(length) === b.charCodeAt(length)) length += 1;
  return length;
}
