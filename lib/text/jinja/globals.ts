// The functions that every template has: those of jinja2 and those that transformers adds.
import type { Budget } from './budget.ts';
import { quote } from './characters.ts';
import { Dict } from './dict.ts';
import { TemplateError } from './errors.ts';
import { toIndex } from './numbers.ts';
import { bind } from './signature.ts';
import { strftime } from './strftime.ts';
import { repr, str } from './to_text.ts';
import { type Arguments, Builtin, isString, iterate, listOf, Obj, Range, textIn, type Value } from './values.ts';

/** The limit of jinja2's sandbox. */
const MAX_RANGE = 100_000;

/** A namespace, whose fields a template may assign: {% set x.y = … %}. */
export class Namespace extends Obj {
  readonly typeName = 'Namespace';
  readonly #fields: Dict;

  constructor(fields: Dict) {
    super();
    this.#fields = fields;
  }

  set(name: string, value: Value): void {
    this.#fields.set(name, value);
  }

  override get isTrue() {
    return true;
  }

  override attribute(name: string) {
    return this.#fields.get(name);
  }

  override repr(budget: Budget) {
    return `<Namespace ${repr(budget, this.#fields)}>`;
  }
}

class Cycler extends Obj {
  readonly typeName = 'Cycler';
  readonly #items: Value[];
  #at = 0;

  constructor(items: Value[]) {
    super();
    if (items.length === 0) throw new TemplateError('at least one item has to be provided');
    this.#items = items;
  }

  override attribute(name: string): Value | undefined {
    if (name === 'current') return this.#items[this.#at];
    if (name === 'items') return this.#items;
    if (name === 'pos') return this.#at;
    if (name !== 'next' && name !== 'reset') return undefined;
    return new Builtin(() => {
      const item = name === 'next' ? this.#items[this.#at] : null;
      this.#at = name === 'next' ? (this.#at + 1) % this.#items.length : 0;
      return item;
    });
  }
}

class Joiner extends Obj {
  readonly typeName = 'Joiner';
  readonly #separator: Value;
  #isUsed = false;

  constructor(separator: Value) {
    super();
    this.#separator = separator;
  }

  override get isCallable() {
    return true;
  }

  override call(): Value {
    const text = this.#isUsed ? this.#separator : '';
    this.#isUsed = true;
    return text;
  }

  override attribute(name: string): Value | undefined {
    if (name === 'sep') return this.#separator;
    return name === 'used' ? this.#isUsed : undefined;
  }
}

const joiner = (separator: Value = ', ') => new Joiner(separator);

function range(_: Budget, args: Arguments): Value {
  if (args.named.size > 0 || args.positional.length < 1 || args.positional.length > 3) {
    throw new TemplateError('range expected 1 to 3 arguments');
  }
  const [first, second, step = 1] = args.positional.map((one) => toIndex(one, 'an argument of range'));
  if (step === 0) throw new TemplateError('range() arg 3 must not be zero');
  const made = second === undefined ? new Range(0, first, 1) : new Range(first, second, step);
  if (made.length > MAX_RANGE) throw new TemplateError(`range of more than ${MAX_RANGE} items`);
  return made;
}

function dict(budget: Budget, { positional, named }: Arguments): Dict {
  const [source = null] = positional;
  if (positional.length > 1) throw new TemplateError(`dict expected at most 1 argument, got ${positional.length}`);
  budget.container(named.size * 4);
  const made = new Dict();
  if (source instanceof Dict) for (const [key, value] of source.entries()) made.set(key, value);
  else if (positional.length > 0) {
    const pairs = iterate(budget, source);
    for (let next = pairs.next(); !next.done; next = pairs.next()) {
      const pair = listOf(budget, next.value);
      if (pair.length !== 2) throw new TemplateError('dictionary update sequence element must have length 2');
      made.set(pair[0], pair[1]);
    }
  }
  for (const [key, value] of named) made.set(key, value);
  budget.container(made.length * 4);
  return made;
}

function unknown(name: string) {
  return new Builtin(() => {
    throw new TemplateError(`${name}() returns a different text each time`);
  }, 'function');
}

/** Makes a new set for one rendering. @param now the time that strftime_now() returns */
export function globals(now: Date): Map<string, Value> {
  return new Map<string, Value>([
    ['range', new Builtin(range, 'function')],
    ['dict', new Builtin(dict, 'type')],
    ['namespace', new Builtin((budget, args) => new Namespace(dict(budget, args)), 'type')],
    ['cycler', new Builtin((_, args) => new Cycler(bind('cycler', ['*items'], args)[0] as Value[]), 'type')],
    ['joiner', new Builtin((_, args) => joiner(bind('joiner', ['sep?'], args)[0]), 'type')],
    ['lipsum', unknown('lipsum')],
    [
      'raise_exception',
      new Builtin((budget, args) => {
        throw new TemplateError(str(budget, bind('raise_exception', ['message'], args)[0]!));
      }, 'function'),
    ],
    [
      'strftime_now',
      new Builtin((budget, args) => {
        const [format] = bind('strftime_now', ['format'], args);
        if (!isString(format!))
          throw new TemplateError(`strftime_now: the format must be a text, not ${quote(str(budget, format!))}`);
        budget.text(textIn(format).length * 32);
        return strftime(textIn(format), now);
      }, 'function'),
    ],
  ]);
}
