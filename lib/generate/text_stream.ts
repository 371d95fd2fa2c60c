// Token ids to text, streamed: whole characters, and no part of a stop string.
import type { Tokenizer } from '../text/tokenizer.ts';

const INCOMPLETE = '\ufffd';

/** Tokens of the text before that a decoder needs to know that it is not at a text's beginning, and to end a character. */
const CONTEXT = 16;

export class TextStream {
  readonly #tokenizer: Tokenizer;
  readonly #stops: readonly string[];
  readonly #ids: number[];
  /** Where decoding begins, so that it need not go through all ids, and up to where the text is known. */
  #begin = 0;
  #known: number;
  #held = '';
  /** Whether a stop string has come. */
  isStopped = false;

  /** @param options.context ids of the text that these go on with: decoders leave out the space that a text begins with */
  constructor(tokenizer: Tokenizer, options: { stops?: readonly string[]; context?: ArrayLike<number> } = {}) {
    const { stops = [], context = [] } = options;
    this.#tokenizer = tokenizer;
    this.#stops = stops.filter((stop) => stop !== '');
    this.#ids = Array.from(context).slice(-CONTEXT);
    this.#known = this.#ids.length;
  }

  /** The text that the id completes: '' while a character is incomplete or a stop string may have begun. */
  push(id: number): string {
    this.#ids.push(id);
    const text = this.#new();
    if (text.endsWith(INCOMPLETE)) return '';
    if (text !== '') this.#begin = this.#known; // else the next one may still be a text's first that is seen
    this.#known = this.#ids.length;
    return this.#release(text);
  }

  /** What is left when no more ids come. */
  end(): string {
    if (this.isStopped) return '';
    const rest = this.#held + this.#new();
    this.#held = '';
    return rest;
  }

  /** The text of the ids that are not known yet. */
  #new(): string {
    const before = this.#tokenizer.decode(this.#ids.slice(this.#begin, this.#known));
    const text = this.#tokenizer.decode(this.#ids.slice(this.#begin));
    if (text.startsWith(before)) return text.slice(before.length);
    // The context ended within a character: it is given whole.
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
