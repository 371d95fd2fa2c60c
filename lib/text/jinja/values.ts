// The values of a template's expressions: those of Python.
import { Float } from '../json.ts';
import type { Budget } from './budget.ts';
import { quote } from './characters.ts';
import { TemplateError } from './errors.ts';

/**
 * None, bool, int (an integer number, or a bigint beyond 2^53), float (a number that is no integer, or Float), str, list, or one of the
 * objects below.
 */
export type Value = null | boolean | number | bigint | string | Float | Value[] | Obj;

export interface Arguments {
  positional: Value[];
  named: ReadonlyMap<string, Value>;
}

/** Any value that JavaScript does not have. */
export abstract class Obj {
  /** type(value).__name__ */
  abstract readonly typeName: string;

  /** repr() and str(). Throws by default: Python prints most of these objects with an address, which differs each time. */
  repr(_budget: Budget): string {
    throw new TemplateError(`a ${this.typeName} cannot be converted to text`);
  }

  str(budget: Budget): string {
    return this.repr(budget);
  }

  /** len(); null if it has none. */
  get length(): number | null {
    return null;
  }

  get isTrue(): boolean {
    return this.length !== 0;
  }

  /** iter(); null if it has none. */
  iterate(_budget: Budget): Iterator<Value> | null {
    return null;
  }

  /** getattr(); undefined if there is none. Methods are in methods.ts and str_methods.ts. */
  attribute(_name: string): Value | undefined {
    return undefined;
  }

  /** value[key]; undefined if there is none. */
  item(_key: Value): Value | undefined {
    return undefined;
  }

  get isCallable(): boolean {
    return false;
  }

  call(_budget: Budget, _args: Arguments): Value {
    throw new TemplateError(`'${this.typeName}' object is not callable`);
  }
}

/** The value of a name or field that has none: prints as nothing, is false and empty, and throws for all other uses. */
export class Undefined extends Obj {
  readonly typeName = 'Undefined';
  readonly message: string;

  constructor(message: string) {
    super();
    this.message = message;
  }

  static named(name: string): Undefined {
    return new Undefined(`'${name}' is undefined`);
  }

  override get length() {
    return 0;
  }

  override repr() {
    return 'Undefined';
  }

  override str() {
    return '';
  }

  override iterate(): Iterator<Value> {
    return [][Symbol.iterator]();
  }

  override attribute(): never {
    throw new TemplateError(this.message);
  }

  override item(): never {
    throw new TemplateError(this.message);
  }

  override call(): never {
    throw new TemplateError(this.message);
  }

  override get isCallable() {
    return true;
  }
}

export class Tuple extends Obj {
  readonly typeName = 'tuple';
  readonly items: readonly Value[];
  /** The names of the items, if it is a named tuple. */
  readonly #names: readonly string[];

  constructor(items: readonly Value[], names: readonly string[] = []) {
    super();
    this.items = items;
    this.#names = names;
  }

  override get length() {
    return this.items.length;
  }

  get isNamed() {
    return this.#names.length > 0;
  }

  override iterate() {
    return this.items[Symbol.iterator]();
  }

  override attribute(name: string) {
    const index = this.#names.indexOf(name);
    return index < 0 ? undefined : this.items[index];
  }
}

/** A text that is safe HTML. */
export class Markup extends Obj {
  readonly typeName = 'Markup';
  readonly text: string;

  constructor(text: string) {
    super();
    this.text = text;
  }

  override get isTrue() {
    return this.text !== '';
  }

  override repr() {
    return `Markup(${quote(this.text)})`;
  }

  override str() {
    return this.text;
  }
}

/** An iterator: yields each of its values once. */
export class Once extends Obj {
  readonly typeName: string;
  readonly #iterator: Iterator<Value>;

  constructor(iterator: Iterator<Value>, typeName = 'generator') {
    super();
    this.#iterator = iterator;
    this.typeName = typeName;
  }

  override iterate(budget: Budget): Iterator<Value> {
    return {
      next: () => {
        budget.spend(1);
        return this.#iterator.next();
      },
    };
  }
}

/** range() */
export class Range extends Obj {
  readonly typeName = 'range';
  readonly start: number;
  readonly stop: number;
  readonly step: number;

  constructor(start: number, stop: number, step: number) {
    super();
    this.start = start;
    this.stop = stop;
    this.step = step;
  }

  override get length() {
    return Math.max(0, Math.ceil((this.stop - this.start) / this.step));
  }

  at(index: number): number {
    return this.start + index * this.step;
  }

  override *iterate(budget: Budget) {
    for (let i = 0; i < this.length; i++) {
      budget.spend(1);
      yield this.at(i);
    }
  }

  override repr() {
    const step = this.step === 1 ? '' : `, ${this.step}`;
    return `range(${this.start}, ${this.stop}${step})`;
  }

  override attribute(name: string) {
    return name === 'start' || name === 'stop' || name === 'step' ? this[name] : undefined;
  }
}

/** A function of the engine: a method with its object, or a global. */
export class Builtin extends Obj {
  readonly typeName: string;
  readonly #run: (budget: Budget, args: Arguments) => Value;

  constructor(run: (budget: Budget, args: Arguments) => Value, typeName = 'builtin_function_or_method') {
    super();
    this.#run = run;
    this.typeName = typeName;
  }

  override get isCallable() {
    return true;
  }

  override call(budget: Budget, args: Arguments) {
    return this.#run(budget, args);
  }
}

export const isString = (value: Value): value is string | Markup =>
  typeof value === 'string' || value instanceof Markup;

/** The characters of a str or Markup. */
export const textIn = (value: string | Markup): string => (typeof value === 'string' ? value : value.text);

/** A value that a statement writes without conversion: it must be a text. */
export function textOrFail(value: Value, what: string): string {
  if (isString(value)) return textIn(value);
  throw new TemplateError(`${what} returns a ${typeName(value)}, which is no text`);
}

export const isFloat = (value: Value): value is number | Float =>
  value instanceof Float || (typeof value === 'number' && !Number.isInteger(value));

/** Whether a value is an int and no bool. */
export const isInt = (value: Value): value is number | bigint =>
  typeof value === 'bigint' || (typeof value === 'number' && Number.isInteger(value));

export const isNumber = (value: Value): value is number | bigint | boolean | Float =>
  typeof value === 'number' || typeof value === 'bigint' || typeof value === 'boolean' || value instanceof Float;

/** Makes a float. */
export const float = (value: number): number | Float => (Number.isInteger(value) ? new Float(value) : value);

/** Makes an int. */
export const int = (value: bigint): number | bigint => {
  const small = Number(value);
  return Number.isSafeInteger(small) ? small : value;
};

/** type(value).__name__ */
export function typeName(value: Value): string {
  if (value === null) return 'NoneType';
  if (typeof value === 'string') return 'str';
  if (typeof value === 'boolean') return 'bool';
  if (isFloat(value)) return 'float';
  if (isInt(value)) return 'int';
  return Array.isArray(value) ? 'list' : (value as Obj).typeName;
}

export function isTrue(value: Value): boolean {
  if (value instanceof Obj) return value.isTrue;
  if (Array.isArray(value)) return value.length > 0;
  if (value instanceof Float) return value.value !== 0;
  return Number.isNaN(value) || Boolean(value);
}

/** An iterator over the values of an iterable. @throws TemplateError if it is none */
export function iterate(budget: Budget, value: Value): Iterator<Value> {
  const iterator = tryIterate(budget, value);
  if (iterator) return iterator;
  throw new TemplateError(`'${typeName(value)}' object is not iterable`);
}

export function tryIterate(budget: Budget, value: Value): Iterator<Value> | null {
  if (Array.isArray(value)) return value[Symbol.iterator]();
  if (isString(value)) return textIn(value)[Symbol.iterator]();
  return value instanceof Obj ? value.iterate(budget) : null;
}

/** list(value) */
export function listOf(budget: Budget, value: Value): Value[] {
  const items: Value[] = [];
  const iterator = iterate(budget, value);
  for (let next = iterator.next(); !next.done; next = iterator.next()) {
    budget.spend(1);
    items.push(next.value);
  }
  budget.container(items.length);
  return items;
}

/** len(value); null if it has none */
export function lengthOrNull(value: Value): number | null {
  return Array.isArray(value) ? value.length : value instanceof Obj ? value.length : null;
}
