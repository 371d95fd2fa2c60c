// What the expressions of a template may be: Python's values.
import { Float } from '../json.ts';
import type { Budget } from './budget.ts';
import { quote } from './characters.ts';
import { TemplateError } from './errors.ts';

/**
 * None, bool, int (a number that is an integer, or a bigint beyond 2^53), float (a number that is no integer, or Float), str, list, or one
 * of the objects below.
 */
export type Value = null | boolean | number | bigint | string | Float | Value[] | Obj;

export interface Arguments {
  positional: Value[];
  named: ReadonlyMap<string, Value>;
}

/** Any value but those that JavaScript has. */
export abstract class Obj {
  /** type(value).__name__ */
  abstract readonly typeName: string;

  /** repr() and str(); what Python prints with an address cannot agree. */
  repr(_budget: Budget): string {
    throw new TemplateError(`text would be made of a ${this.typeName}, which has no form of its own`);
  }

  str(budget: Budget): string {
    return this.repr(budget);
  }

  /** len(); null where there is none. */
  get length(): number | null {
    return null;
  }

  get isTrue(): boolean {
    return this.length !== 0;
  }

  /** iter(); null where there is none. */
  iterate(_budget: Budget): Iterator<Value> | null {
    return null;
  }

  /** getattr(); undefined where there is none. Methods are in methods.ts. */
  attribute(_name: string): Value | undefined {
    return undefined;
  }

  /** value[key]; undefined where there is none. */
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

/** What a name or field without a value is: prints as nothing, is false and empty, and fails at all else. */
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
  /** Names of the items, of a named tuple. */
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

/** A text that is marked as safe HTML. */
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

/** An iterator, which gives each of its values once. */
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

/** A function of the engine: a method with the object that it is of, a global. */
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

/** A str's characters, marked or not. */
export const textIn = (value: string | Markup): string => (typeof value === 'string' ? value : value.text);

/** What a statement writes as it is. */
export function textOrFail(value: Value, what: string): string {
  if (isString(value)) return textIn(value);
  throw new TemplateError(`${what} makes a ${typeName(value)}, which is no text`);
}

export const isFloat = (value: Value): value is number | Float =>
  value instanceof Float || (typeof value === 'number' && !Number.isInteger(value));

/** An int, bool not among them. */
export const isInt = (value: Value): value is number | bigint =>
  typeof value === 'bigint' || (typeof value === 'number' && Number.isInteger(value));

export const isNumber = (value: Value): value is number | bigint | boolean | Float =>
  typeof value === 'number' || typeof value === 'bigint' || typeof value === 'boolean' || value instanceof Float;

/** A float. */
export const float = (value: number): number | Float => (Number.isInteger(value) ? new Float(value) : value);

/** An int. */
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

/** The values of an iterable. @throws TemplateError where it is none */
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

/** len(value); null where there is none */
export function lengthOrNull(value: Value): number | null {
  return Array.isArray(value) ? value.length : value instanceof Obj ? value.length : null;
}
