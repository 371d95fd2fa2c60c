// A piece of text in the normalizers and pre-tokenizers, with the place in the original text of each of its characters.

import { checkGrowth } from './budget.ts';

const isHighSurrogate = (unit: number) => unit >= 0xd800 && unit < 0xdc00;

/** Number of UTF-16 units of the character at `i`; `i` must be its first unit. */
export const unitsAt = (text: string, i: number): 1 | 2 => (isHighSurrogate(text.charCodeAt(i)) ? 2 : 1);

export class Piece {
  readonly text: string;
  /** The index in the original text where it begins. */
  readonly start: number;
  /** For each unit of `text` the index in the original text after what it stands for; null: the units are those of the original. */
  readonly ends: Int32Array | null;

  constructor(text: string, start = 0, ends: Int32Array | null = null) {
    this.text = text;
    this.start = start;
    this.ends = ends;
  }

  /** The index in the original text after the character that unit `i` belongs to. */
  endAt(i: number): number {
    return this.ends ? this.ends[i]! : this.start + i + unitsAt(this.text, i);
  }

  /** The index in the original text of what unit `i` stands for. */
  startAt(i: number): number {
    if (!this.ends) return this.start + i;
    let first = i;
    while (first > 0 && this.ends[first - 1] === this.ends[i]) first -= 1;
    return first === 0 ? this.start : this.ends[first - 1]!;
  }

  slice(begin: number, end = this.text.length): Piece {
    if (begin === 0 && end === this.text.length) return this;
    return new Piece(this.text.slice(begin, end), this.startAt(begin), this.ends?.subarray(begin, end) ?? null);
  }

  /** Another text with as many units, which stand for the same places. */
  withUnits(text: string): Piece {
    return new Piece(text, this.start, this.ends);
  }

  /** The piece with text before it, which counts as part of its first character. */
  prepend(text: string): Piece {
    if (this.text === '') return this;
    const rewriter = new Rewriter(this);
    rewriter.put(text, 0, 0);
    rewriter.keep(0, this.text.length);
    return rewriter.done();
  }
}

/** Rewrites a piece from left to right. */
export class Rewriter {
  readonly #piece: Piece;
  readonly #parts: string[] = [];
  #ends: Int32Array;
  #length = 0;
  #start = -1;

  constructor(piece: Piece) {
    this.#piece = piece;
    this.#ends = new Int32Array(piece.text.length + 16);
  }

  /** Keeps units `begin` to `end`. */
  keep(begin: number, end: number): void {
    if (begin === end) return;
    const { text, ends, start } = this.#piece;
    this.#begin(begin);
    this.#reserve(end - begin);
    if (ends) this.#ends.set(ends.subarray(begin, end), this.#length);
    else {
      for (let i = begin; i < end; i++) {
        this.#ends[this.#length + i - begin] = start + i + unitsAt(text, i);
      }
    }
    this.#length += end - begin;
    this.#parts.push(text.slice(begin, end));
  }

  /**
   * Puts `text` in place of the units `begin` to `end`. If there are none, it belongs to the character before or, if there is none, to the
   * one after.
   */
  put(text: string, begin: number, end: number): void {
    if (text === '') return;
    this.#begin(begin);
    this.#reserve(text.length);
    const last = end > begin ? end - 1 : Math.max(0, begin - 1);
    this.#ends.fill(this.#piece.endAt(last), this.#length, this.#length + text.length);
    this.#length += text.length;
    this.#parts.push(text);
  }

  done(): Piece {
    const ends = this.#ends.subarray(0, this.#length);
    return new Piece(this.#parts.join(''), Math.max(this.#piece.start, this.#start), ends);
  }

  #begin(at: number): void {
    if (this.#start < 0) this.#start = this.#piece.startAt(at);
  }

  #reserve(more: number): void {
    if (this.#length + more <= this.#ends.length) return;
    checkGrowth(this.#piece.text.length, this.#length + more, 'the normalizer');
    const larger = new Int32Array(2 * (this.#length + more));
    larger.set(this.#ends.subarray(0, this.#length));
    this.#ends = larger;
  }
}
