// The variable `loop` of a for.
import type { Budget } from './budget.ts';
import { lengthOf } from './characters.ts';
import { TemplateError } from './errors.ts';
import { equals } from './operators.ts';
import { bind } from './signature.ts';
import {
  type Arguments,
  Builtin,
  isString,
  iterate,
  lengthOrNull,
  listOf,
  Obj,
  Once,
  Tuple,
  textIn,
  Undefined,
  type Value,
} from './values.ts';

export class Loop extends Obj {
  readonly typeName = 'LoopContext';
  readonly #budget: Budget;
  #iterator: Iterator<Value>;
  #length: number | null;
  readonly #depth0: number;
  readonly #recurse: ((iterable: Value, depth: number) => Value) | null;
  #index0 = -1;
  #before: Value | undefined;
  #current: Value | undefined;
  /** The next item, if it has been read ahead. */
  #after: Value | undefined;
  #changed: Value | undefined;

  /** @param recurse renders the loop over another iterable */
  constructor(budget: Budget, iterable: Value, recurse: Loop['recurse'] = null, depth0 = 0) {
    super();
    this.#budget = budget;
    this.#iterator = iterate(budget, iterable);
    this.#length = isString(iterable) ? lengthOf(textIn(iterable)) : lengthOrNull(iterable);
    this.#recurse = recurse;
    this.#depth0 = depth0;
  }

  get recurse() {
    return this.#recurse;
  }

  /** The next item; undefined at the end. */
  next(): Value | undefined {
    const item = this.#peek();
    this.#after = undefined;
    if (item === undefined) return undefined;
    this.#index0 += 1;
    this.#before = this.#current;
    this.#current = item;
    return item;
  }

  #peek(): Value | undefined {
    if (this.#after !== undefined) return this.#after;
    const next = this.#iterator.next();
    this.#after = next.done ? undefined : next.value;
    return this.#after;
  }

  override get length(): number {
    if (this.#length === null) {
      const rest = listOf(this.#budget, new Once(this.#iterator));
      this.#iterator = rest[Symbol.iterator]();
      this.#length = rest.length + this.#index0 + 1 + (this.#after === undefined ? 0 : 1);
    }
    return this.#length;
  }

  override repr(): string {
    return `<LoopContext ${this.#index0 + 1}/${this.length}>`;
  }

  override get isCallable() {
    return true;
  }

  override call(_: Budget, args: Arguments): Value {
    const [iterable] = bind('loop', ['iterable'], args);
    if (this.#recurse) return this.#recurse(iterable!, this.#depth0 + 1);
    throw new TemplateError("The loop must have the 'recursive' marker to be called recursively.");
  }

  override attribute(name: string): Value | undefined {
    switch (name) {
      case 'index0':
        return this.#index0;
      case 'index':
        return this.#index0 + 1;
      case 'revindex0':
        return this.length - this.#index0 - 1;
      case 'revindex':
        return this.length - this.#index0;
      case 'first':
        return this.#index0 === 0;
      case 'last':
        return this.#peek() === undefined;
      case 'length':
        return this.length;
      case 'depth0':
        return this.#depth0;
      case 'depth':
        return this.#depth0 + 1;
      case 'previtem':
        return this.#index0 > 0 ? this.#before : new Undefined('there is no previous item');
      case 'nextitem':
        return this.#peek() ?? (this.#after === null ? null : new Undefined('there is no next item'));
      case 'cycle':
        return new Builtin((_, { positional }) => {
          if (positional.length === 0) throw new TemplateError('no items for cycling given');
          return positional[this.#index0 % positional.length];
        });
      case 'changed':
        return new Builtin((budget, { positional }) => {
          const value = new Tuple(positional);
          if (this.#changed !== undefined && equals(budget, this.#changed, value)) return false;
          this.#changed = value;
          return true;
        });
    }
    return undefined;
  }
}
