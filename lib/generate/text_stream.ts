// Token ids to text as it comes: whole characters, and nothing of a stop string.
import type { Tokenizer } from '../text/tokenizer.ts';

const INCOMPLETE = '\ufffd';

export class TextStream {
  readonly #tokenizer: Tokenizer;
  readonly #stops: readonly string[];
  readonly #ids: number[] = [];
  /** Where decoding begins, so that it need not go through all ids, and up to where the text is known. */
  #begin = 0;
  #known = 0;
  #held = '';
  /** Whether a stop string has come. */
  isStopped = false;

  constructor(tokenizer: Tokenizer, stops: readonly string[] = []) {
    this.#tokenizer = tokenizer;
    this.#stops = stops.filter((stop) => stop !== '');
  }

  /** The text that the id makes known: '' while a character is incomplete or a stop string may be under way. */
  push(id: number): string {
    this.#ids.push(id);
    const before = this.#tokenizer.decode(this.#ids.slice(this.#begin, this.#known));
    const text = this.#tokenizer.decode(this.#ids.slice(this.#begin));
    if (text.endsWith(INCOMPLETE)) return '';
    this.#begin = this.#known;
    this.#known = this.#ids.length;
    return this.#release(text.slice(before.length));
  }

  /** What is left when no more ids come. */
  end(): string {
    if (this.isStopped) return '';
    const before = this.#tokenizer.decode(this.#ids.slice(this.#begin, this.#known));
    const rest = this.#held + this.#tokenizer.decode(this.#ids.slice(this.#begin)).slice(before.length);
    this.#held = '';
    return rest;
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
