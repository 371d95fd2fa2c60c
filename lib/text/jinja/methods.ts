// The methods of Python's types, except str, that the sandbox lets a template call.
import type { Budget } from './budget.ts';
import { type Bytes, decode } from './bytes.ts';
import { Dict, DictView } from './dict.ts';
import { TemplateError } from './errors.ts';
import { resolveReferences, stripTags } from './html_text.ts';
import { toIndex } from './numbers.ts';
import { equals } from './operators.ts';
import type { Builtins, Methods } from './signature.ts';
import {
  float,
  isInt,
  isString,
  iterate,
  lengthOrNull,
  listOf,
  type Markup,
  Tuple,
  textIn,
  typeName,
  type Value,
} from './values.ts';

type Table = Record<string, Builtins<Budget>>;

function itemsOf(budget: Budget, value: Value): readonly Value[] {
  return Array.isArray(value) ? value : value instanceof Tuple ? value.items : listOf(budget, value);
}

const sequence: Table = {
  count: {
    parameters: ['/value'],
    run: (budget, self, value) => itemsOf(budget, self).filter((one) => equals(budget, one, value!)).length,
  },
  index: {
    parameters: ['/value', '/start?', '/stop?'],
    run(budget, self, value, start = 0, stop) {
      const items = itemsOf(budget, self);
      const bound = (given: Value) => Math.max(0, Number(given) < 0 ? Number(given) + items.length : Number(given));
      const end = stop === undefined ? items.length : Math.min(items.length, bound(stop));
      for (let i = bound(start); i < end; i++) if (equals(budget, items[i], value!)) return i;
      throw new TemplateError('value is not in list');
    },
  },
};

const list: Table = {
  ...sequence,
  // jinja2 3.1.2 lets a template call these two; later versions do not.
  pop: {
    parameters: ['/index?'],
    run(_, self, index = -1) {
      const [popped] = (self as Value[]).splice(toIndex(index, 'an index'), 1);
      if (popped === undefined) throw new TemplateError('pop index out of range');
      return popped;
    },
  },
  clear: {
    parameters: [],
    run(_, self) {
      (self as Value[]).length = 0;
      return null;
    },
  },
  copy: {
    parameters: [],
    run(budget, self) {
      budget.container((self as Value[]).length);
      return [...(self as Value[])];
    },
  },
};

const dict: Table = {
  get: {
    parameters: ['/key', '/default?'],
    run(_, self, key, otherwise = null) {
      const value = (self as Dict).get(key!);
      return value === undefined ? otherwise : value;
    },
  },
  keys: { parameters: [], run: (_, self) => new DictView(self as Dict, 'keys') },
  values: { parameters: [], run: (_, self) => new DictView(self as Dict, 'values') },
  items: { parameters: [], run: (_, self) => new DictView(self as Dict, 'items') },
  copy: {
    parameters: [],
    run(budget, self) {
      budget.container(lengthOrNull(self)! * 4);
      return new Dict((self as Dict).entries());
    },
  },
  fromkeys: {
    parameters: ['/iterable', '/value?'],
    run(budget, _, iterable, value = null) {
      const made = new Dict();
      const iterator = iterate(budget, iterable!);
      for (let next = iterator.next(); !next.done; next = iterator.next()) {
        budget.container(1);
        made.set(next.value, value);
      }
      return made;
    },
  },
};

const int: Table = {
  bit_length: { parameters: [], run: (_, self) => bitsOf(self).length },
  bit_count: { parameters: [], run: (_, self) => bitsOf(self).replaceAll('0', '').length },
  conjugate: { parameters: [], run: (_, self) => (isInt(self) ? self : Number(self)) },
};

function bitsOf(value: Value): string {
  const whole = BigInt(value as number | bigint | boolean);
  return whole === 0n ? '' : (whole < 0n ? -whole : whole).toString(2);
}

const floating: Table = {
  is_integer: { parameters: [], run: (_, self) => Number.isInteger(Number(self)) },
  conjugate: { parameters: [], run: (_, self) => float(Number(self)) },
};

const bytes: Table = {
  decode: {
    parameters: ['encoding?', 'errors?'],
    run(budget, self, encoding = 'utf-8', errors = 'strict') {
      budget.text(lengthOrNull(self)! * 2);
      return decode(self as Bytes, textArgument(encoding), textArgument(errors));
    },
  },
  hex: {
    parameters: ['sep?', 'bytes_per_sep?'],
    run(budget, self, separator = '', group = 1) {
      budget.text(lengthOrNull(self)! * 4);
      return hexOf(self as Bytes, textArgument(separator), toIndex(group, 'bytes_per_sep'));
    },
  },
};

/** @param group number of bytes between two separators, counted from the right, or from the left if negative */
function hexOf({ data }: Bytes, separator: string, group: number): string {
  if (separator !== '' && !/^[\0-\x7f]$/.test(separator)) throw new TemplateError('sep must be one ASCII character');
  const size = Math.abs(group);
  const first = group > 0 ? data.length % size : 0;
  return Array.from(data, (byte, i) => {
    const isCut = size > 0 && i > 0 && (i - first) % size === 0;
    return (isCut ? separator : '') + byte.toString(16).padStart(2, '0');
  }).join('');
}

function textArgument(value: Value): string {
  if (isString(value)) return textIn(value);
  throw new TemplateError(`an argument must be str, not ${typeName(value)}`);
}

const markup: Table = {
  striptags: {
    parameters: [],
    run(budget, self) {
      const { text } = self as Markup;
      budget.text(text.length * 2);
      return stripTags(text);
    },
  },
  unescape: {
    parameters: [],
    run(budget, self) {
      const { text } = self as Markup;
      budget.text(text.length * 2);
      return resolveReferences(text);
    },
  },
};

export const METHODS: ReadonlyMap<string, Methods> = new Map(
  Object.entries({
    list,
    tuple: sequence,
    range: sequence,
    dict,
    int,
    bool: int,
    float: floating,
    bytes,
    Markup: markup,
  }).map(([type, table]) => [type, new Map(Object.entries(table))]),
);
