// Converts token ids to text as they come: only whole characters, and no part of a stop string.
import type { Tokenizer } from '../text/tokenizer.ts';

const INCOMPLETE = '\ufffd';

/** Number of earlier tokens that are decoded too, so that the decoder is not at the start of a text and can complete a character. */
const CONTEXT = 16;

export class TextStream {
  readonly #tokenizer: Tokenizer;
  readonly #stops: readonly string[];
  readonly #ids: number[];
  /** Index where decoding starts, so that it does not repeat all ids, and index up to which the text has been returned. */
  #begin = 0;
  #known: number;
  #held = '';
  /** Whether a stop string has been found. */
  isStopped = false;

  /** @param options.context ids before the new ones, if these continue a text: decoders drop the space at a text's start */
  constructor(tokenizer: Tokenizer, options: { stops?: readonly string[]; context?: ArrayLike<number> } = {}) {
    const { stops = [], context = [] } = options;
    this.#tokenizer = tokenizer;
    this.#stops = stops.filter((stop) => stop !== '');
    this.#ids = Array.from(context).slice(-CONTEXT);
    this.#known = this.#ids.length;
  }

  /** The text that an id completes; '' while a character is incomplete or a stop string may have begun. */
  push(id: number): string {
    this.#ids.push(id);
    const text = this.#new();
    if (text.endsWith(INCOMPLETE)) return '';
    if (text !== '') this.#begin = this.#known; // otherwise the next token may still produce the first visible text
    this.#known = this.#ids.length;
    return this.#release(text);
  }

  /** The remaining text, after the last id. */
  end(): string {
    if (this.isStopped) return '';
    const rest = this.#held + this.#new();
    this.#held = '';
    return rest;
  }

  /** The text of the ids whose text has not been returned. */
  #new(): string {
    const before = this.#tokenizer.decode(this.#ids.slice(this.#begin, this.#known));
    const text = this.#tokenizer.decode(this.#ids.slice(this.#begin));
    if (text.startsWith(before)) return text.slice(before.length);
    // The context ended inside a character: return the whole character.
    let same = 0;
    while (same < before.length && text[same] === before[same]) same += 1;
    return text.slice(same);
  }

  #release(text: string): string {
    const whole = this.#held + text;
    const found = this.#stops.map((stop) => whole.indexOf(stop)).filter((at) => at >= 0);
    if (found.length > 0) {
      this.isStopped = true;
      this.#held = '';
      return whole.slice(0, Math.min(...found));
    }
    let held = 0;
    for (const stop of this.#stops) {
      for (let length = Math.min(stop.length - 1, whole.length); length > held; length--) {
        if (whole.endsWith(stop.slice(0, length))) held = length;
      }
    }
    this.#held = whole.slice(whole.length - held);
    return whole.slice(0, whole.length - held);
  }
}
