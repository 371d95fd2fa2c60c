// What a user should know about a data set: each thing once, with its count and its first place.

export interface Note {
  what: string;
  count: number;
  /** The file and the line or row. */
  first: string;
}

/** Most kinds that are kept: kinds may contain names from the data, which are unbounded. */
const MAX_KINDS = 50;
const OTHERS = 'other notes on single records';

export class Notes {
  readonly #notes = new Map<string, Note>();

  add(what: string, place: string): void {
    const kind = this.#notes.has(what) || this.#notes.size < MAX_KINDS ? what : OTHERS;
    const note = this.#notes.get(kind) ?? { what: kind, count: 0, first: place };
    note.count += 1;
    this.#notes.set(kind, note);
  }

  /** In the order in which they came up. */
  list(): Note[] {
    return [...this.#notes.values()];
  }
}

export function formatNote({ what, count, first }: Note): string {
  return count === 1 ? `${what}: at ${first}` : `${what}: ${count} times, first at ${first}`;
}
