// The fields of a record; keeps track of those that have been used.
import { brief, briefName } from '../../brief.ts';
import { parseJson } from '../json.ts';

export class RecordFields {
  readonly place: string;
  readonly #fields: Record<string, unknown>;
  readonly #used = new Set<string>();

  constructor(value: unknown, place: string) {
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      const hint = Array.isArray(value) ? '; a list of records is for .json' : '';
      throw new Error(`${place}: must be an object, got ${brief(value)}${hint}`);
    }
    this.place = place;
    this.#fields = value as Record<string, unknown>;
  }

  /** Whether a field is present and not null. Tables that mix several forms have nulls everywhere. */
  has(name: string): boolean {
    return Object.hasOwn(this.#fields, name) && this.#fields[name] !== null && this.#fields[name] !== undefined;
  }

  /** Returns a field and marks it as used; undefined if it is absent or null. */
  take(name: string): unknown {
    if (!this.has(name)) return undefined;
    this.#used.add(name);
    return this.#fields[name];
  }

  /** Returns a field without marking it as used. */
  peek(name: string): unknown {
    return this.has(name) ? this.#fields[name] : undefined;
  }

  takeText(name: string): string | undefined {
    const value = this.take(name);
    if (value === undefined || typeof value === 'string') return value;
    throw this.error(name, `must be text, got ${brief(value)}`);
  }

  /** A list, or JSON text of one. */
  takeList(name: string): unknown[] | undefined {
    const value = this.#parsed(name);
    if (value === undefined || Array.isArray(value)) return value;
    throw this.error(name, `must be a list, got ${brief(value)}`);
  }

  /** An object, or JSON text of one. */
  takeObject(name: string): Record<string, unknown> | undefined {
    const value = this.#parsed(name);
    if (value === undefined) return undefined;
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
    throw this.error(name, `must be an object, got ${brief(value)}`);
  }

  #parsed(name: string): unknown {
    const value = this.take(name);
    if (typeof value !== 'string') return value;
    if (value.trim() === '') return undefined;
    try {
      return parseJson(value);
    } catch (error) {
      throw this.error(name, `is text that is not JSON: ${(error as Error).message}`);
    }
  }

  error(name: string, what: string): Error {
    return new Error(`${this.place}: ${name} ${what}`);
  }

  /** The error for a required field that is absent or null. */
  missing(name: string): Error {
    return this.error(name, this.#fields[name] === null ? 'is null' : 'is missing');
  }

  get names(): string[] {
    return Object.keys(this.#fields);
  }

  /** Whether a field is present and not empty. */
  isFilled(name: string): boolean {
    const value = this.peek(name);
    return value !== undefined && value !== '' && !(Array.isArray(value) && value.length === 0);
  }

  /** One notice for each field that is not empty and has not been used. */
  notices(): string[] {
    return this.names
      .filter((name) => this.isFilled(name) && !this.#used.has(name))
      .map((name) => `a field that is not used: ${JSON.stringify(briefName(name))}`);
  }
}
