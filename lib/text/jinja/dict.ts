// Python's dict: keys of any type that can be hashed, in the order of insertion.
import { Float } from '../json.ts';
import type { Budget } from './budget.ts';
import { Bytes } from './bytes.ts';
import { TemplateError } from './errors.ts';
import { isFloat, Markup, Obj, Tuple, typeName, Undefined, type Value } from './values.ts';

const UNDEFINED = Symbol('undefined');

/** A value that equal keys share: 1, 1.0 and true are one key. @throws TemplateError for a type that cannot be hashed */
export function hash(key: Value): unknown {
  if (typeof key === 'string') return key;
  if (typeof key === 'boolean') return Number(key);
  if (isFloat(key)) {
    const value = Number(key);
    return Number.isInteger(value) && !Number.isSafeInteger(value) ? BigInt(value) : value;
  }
  if (key instanceof Markup) return key.text;
  if (key instanceof Tuple) return hashOfTuple(key);
  if (key instanceof Undefined) return UNDEFINED;
  if (key instanceof Bytes) return `\0${key.data}`;
  if (Array.isArray(key) || key instanceof Dict || (key instanceof DictView && key.typeName !== 'dict_values'))
    throw new TemplateError(`unhashable type: '${typeName(key)}'`);
  return key;
}

/** Longest hash of a tuple in characters: nested tuples can double it at each level. */
const MAX_HASH = 2 ** 16;

function hashOfTuple({ items }: Tuple): string {
  let text = '\0(';
  for (const item of items) {
    text += `${hashText(hash(item))},`;
    if (text.length > MAX_HASH) throw new TemplateError('a tuple is too large for a key');
  }
  return `${text})`;
}

/** One part of a tuple's hash. */
function hashText(part: unknown): string {
  if (typeof part === 'string') return JSON.stringify(part);
  if (typeof part === 'object' && part !== null)
    throw new TemplateError('a tuple with an object in it cannot be a key');
  return String(part);
}

export class Dict extends Obj {
  readonly typeName = 'dict';
  readonly #entries = new Map<unknown, [key: Value, value: Value]>();

  constructor(entries: Iterable<readonly [Value, Value]> = []) {
    super();
    for (const [key, value] of entries) this.set(key, value);
  }

  set(key: Value, value: Value): void {
    const hashed = hash(key);
    const entry = this.#entries.get(hashed);
    if (entry) entry[1] = value;
    else this.#entries.set(hashed, [key, value]);
  }

  get(key: Value): Value | undefined {
    return this.#entries.get(hash(key))?.[1];
  }

  has(key: Value): boolean {
    return this.#entries.has(hash(key));
  }

  override get length() {
    return this.#entries.size;
  }

  entries(): Iterable<[key: Value, value: Value]> {
    return this.#entries.values();
  }

  override *iterate() {
    for (const [key] of this.#entries.values()) yield key;
  }

  override item(key: Value) {
    return Array.isArray(key) || key instanceof Dict ? undefined : this.get(key);
  }
}

/** dict.keys(), .values() and .items() */
export class DictView extends Obj {
  readonly typeName: string;
  readonly dict: Dict;
  readonly #valueOf: (entry: [Value, Value]) => Value;

  constructor(dict: Dict, kind: 'keys' | 'values' | 'items') {
    super();
    this.typeName = `dict_${kind}`;
    this.dict = dict;
    if (kind === 'items') this.#valueOf = ([key, value]) => new Tuple([key, value]);
    else this.#valueOf = kind === 'keys' ? ([key]) => key : ([, value]) => value;
  }

  override get length() {
    return this.dict.length;
  }

  override *iterate(budget: Budget) {
    for (const entry of this.dict.entries()) {
      budget.spend(4);
      yield this.#valueOf(entry);
    }
  }
}

/** Converts JavaScript values to those of templates, and counts them. */
export class Input {
  values = 0;
  units = 0;

  /** @param path the name of the value, for errors */
  valueOf(value: unknown, path: string): Value {
    this.values += 1;
    if (typeof value === 'string') {
      this.units += value.length;
      return value;
    }
    if (value === undefined || value === null) return null;
    if (typeof value === 'boolean' || value instanceof Float || value instanceof Obj) return value;
    if (typeof value === 'number')
      return Number.isInteger(value) && !Number.isSafeInteger(value) ? new Float(value) : value;
    if (typeof value === 'bigint') return Number.isSafeInteger(Number(value)) ? Number(value) : value;
    if (Array.isArray(value)) return value.map((item, i) => this.valueOf(item, `${path}[${i}]`));
    if (typeof value === 'object') {
      const prototype = Object.getPrototypeOf(value);
      if (value instanceof Map) return this.#dict(value, path);
      if (prototype === null || prototype === Object.prototype) return this.#dict(Object.entries(value), path);
    }
    const name = typeof value === 'object' ? value.constructor.name : typeof value;
    throw new TypeError(`${path}: a ${name} cannot be given to a template`);
  }

  #dict(entries: Iterable<[string, unknown]>, path: string): Dict {
    const dict = new Dict();
    for (const [key, value] of entries) {
      if (value !== undefined) dict.set(key, this.valueOf(value, `${path}.${key}`));
    }
    return dict;
  }
}
