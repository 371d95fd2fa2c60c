// Filters of lists and other iterables.
import { getItem } from '../attributes.ts';
import type { Budget } from '../budget.ts';
import { Bytes } from '../bytes.ts';
import { pointsOf } from '../characters.ts';
import { Dict, DictView, hash } from '../dict.ts';
import { TemplateError } from '../errors.ts';
import { like } from '../html.ts';
import { toIndex } from '../numbers.ts';
import { compare, equals, operate } from '../operators.ts';
import { NO_ARGUMENTS } from '../signature.ts';
import {
  type Arguments,
  isString,
  isTrue,
  iterate,
  listOf,
  Once,
  Range,
  Tuple,
  textIn,
  tryIterate,
  typeName,
  Undefined,
  type Value,
} from '../values.ts';
import { type Escaping, type Filter, filter } from './define.ts';

type Getter = (item: Value) => Value;

/** Returns a function that reads item.a.0.b for 'a.0.b'. */
export function getter(
  budget: Budget,
  attribute: Value,
  after: Getter = (item) => item,
  otherwise: Value = null,
): Getter {
  const path: Value[] =
    attribute === null
      ? []
      : isString(attribute)
        ? textIn(attribute)
            .split('.')
            .map((part) => (/^\d+$/.test(part) ? Number(part) : part))
        : [attribute];
  return (item) => {
    let value = item;
    for (const part of path) {
      budget.spend(2);
      value = getItem(budget, value, part);
      if (otherwise !== null && value instanceof Undefined) value = otherwise;
    }
    return after(value);
  };
}

/** Ignores upper and lower case, unless `isSensitive` is true. */
function caseOf(budget: Budget, isSensitive: Value | undefined): Getter {
  if (isTrue(isSensitive ?? false)) return (item) => item;
  return (item) => {
    if (!isString(item)) return item;
    budget.text(textIn(item).length);
    return like(item, textIn(item).toLowerCase());
  };
}

/** sorted(items, key): stable, by < only. */
function sorted(budget: Budget, items: readonly Value[], key: Getter, isReverse: boolean): Value[] {
  const keyed = items.map((item) => ({ item, key: key(item) }));
  budget.container(items.length);
  // Python compares nothing for fewer than two items, so nothing can fail.
  const order = (a: Value, b: Value) => (compare(budget, '<', a, b) < 0 ? -1 : compare(budget, '<', b, a) < 0 ? 1 : 0);
  keyed.sort((a, b) => (isReverse ? order(b.key, a.key) : order(a.key, b.key)));
  return keyed.map(({ item }) => item);
}

/** Python accepts an int here. */
const isReverse = (value: Value) => toIndex(value, 'reverse') !== 0;

function extreme(sign: 1 | -1): (budget: Budget, value: Value, isSensitive?: Value, attribute?: Value) => Value {
  return (budget, value, isSensitive, attribute = null) => {
    const items = listOf(budget, value);
    if (items.length === 0) return new Undefined('No aggregated item, sequence was empty.');
    const key = getter(budget, attribute, caseOf(budget, isSensitive));
    let [best] = items;
    let bestKey = key(best);
    for (const item of items.slice(1)) {
      const itemKey = key(item);
      if (compare(budget, sign < 0 ? '<' : '>', itemKey, bestKey) * sign > 0) [best, bestKey] = [item, itemKey];
    }
    return best;
  };
}

/** A filter that yields its results one at a time, as they are asked for. */
function lazy(budget: Budget, run: () => Generator<Value>): Once {
  budget.container(16);
  return new Once(run());
}

function* unique(budget: Budget, value: Value, key: Getter): Generator<Value> {
  const seen = new Set<unknown>();
  const iterator = iterate(budget, value);
  for (let next = iterator.next(); !next.done; next = iterator.next()) {
    const hashed = hash(key(next.value));
    if (seen.has(hashed)) continue;
    budget.container(1);
    seen.add(hashed);
    yield next.value;
  }
}

function* batches(budget: Budget, value: Value, count: Value, fill: Value): Generator<Value> {
  let batch: Value[] = [];
  const iterator = iterate(budget, value);
  for (let next = iterator.next(); !next.done; next = iterator.next()) {
    if (equals(budget, batch.length, count)) {
      budget.container(batch.length);
      yield batch;
      batch = [];
    }
    batch.push(next.value);
  }
  if (batch.length === 0) return;
  if (fill !== null) {
    const missing = Math.max(0, toIndex(count, 'a count') - batch.length);
    budget.container(missing);
    for (let i = 0; i < missing; i++) batch.push(fill);
  }
  yield batch;
}

function* slices(budget: Budget, value: Value, count: number, fill: Value): Generator<Value> {
  const items = listOf(budget, value);
  if (count === 0) throw new TemplateError('integer division or modulo by zero');
  const size = Math.floor(items.length / count);
  const extra = items.length - size * count;
  let begin = 0;
  for (let i = 0; i < count; i++) {
    const end = begin + size + (i < extra ? 1 : 0);
    budget.container(end - begin);
    const slice = items.slice(begin, end);
    if (fill !== null && i >= extra) slice.push(fill);
    yield slice;
    begin = end;
  }
}

function grouped(budget: Budget, value: Value, attribute: Value, otherwise: Value = null, isSensitive?: Value): Value {
  const key = getter(budget, attribute, caseOf(budget, isSensitive), otherwise);
  const groups: { key: Value; items: Value[] }[] = [];
  for (const item of sorted(budget, listOf(budget, value), key, false)) {
    const itemKey = key(item);
    const last = groups.at(-1);
    if (last && equals(budget, last.key, itemKey)) last.items.push(item);
    else groups.push({ key: itemKey, items: [item] });
  }
  const shown = isTrue(isSensitive ?? false) ? null : getter(budget, attribute, undefined, otherwise);
  return groups.map(({ key: own, items }) => new Tuple([shown ? shown(items[0]) : own, items], ['grouper', 'list']));
}

function dictSorted(
  budget: Budget,
  value: Value,
  isSensitive?: Value,
  by: Value = 'key',
  reverse: Value = false,
): Value {
  if (by !== 'key' && by !== 'value') throw new TemplateError('You can only sort by either "key" or "value"');
  if (!(value instanceof Dict)) throw new TemplateError(`dictsort: '${typeName(value)}' is not a dict`);
  const fold = caseOf(budget, isSensitive);
  const pairs = [...value.entries()].map((entry) => new Tuple(entry));
  budget.container(pairs.length * 4);
  return sorted(budget, pairs, (pair) => fold((pair as Tuple).items[by === 'key' ? 0 : 1]), isReverse(reverse));
}

function total(budget: Budget, value: Value, attribute: Value = null, start: Value = 0): Value {
  if (isString(start)) throw new TemplateError("sum() can't sum strings");
  const key = getter(budget, attribute);
  let sum: Value = start;
  const iterator = iterate(budget, value);
  for (let next = iterator.next(); !next.done; next = iterator.next()) sum = operate(budget, '+', sum, key(next.value));
  return sum;
}

const REVERSIBLE = [Tuple, Range, Dict, DictView, Bytes, Undefined];

function reversed(budget: Budget, value: Value): Value {
  if (isString(value)) {
    budget.text(textIn(value).length);
    return like(value, pointsOf(textIn(value)).reverse().join(''));
  }
  const items = listOf(budget, value).reverse();
  const isLazy = Array.isArray(value) || REVERSIBLE.some((kind) => value instanceof kind);
  return isLazy ? new Once(items[Symbol.iterator](), 'reversed') : items;
}

function last(budget: Budget, value: Value): Value {
  const canReverse = Array.isArray(value) || isString(value) || REVERSIBLE.some((kind) => value instanceof kind);
  if (!canReverse) throw new TemplateError(`'${typeName(value)}' object is not reversible`);
  const items = listOf(budget, value);
  const item = items.at(-1);
  if (isString(value) && typeof item === 'string') return like(value, item);
  return item !== undefined ? item : new Undefined('No last item, sequence was empty.');
}

/** Yields the items that select and similar filters keep. Arguments: [attribute], the name of a test, its arguments. */
function* selected(
  budget: Budget,
  value: Value,
  { positional, named }: Arguments,
  options: SelectOptions,
): Generator<Value> {
  if (!isTrue(value)) return;
  const { hasAttribute, isWanted, tests } = options;
  if (hasAttribute && positional.length === 0) throw new TemplateError('Missing parameter for attribute name');
  const key: Getter = hasAttribute ? getter(budget, positional[0]) : (item) => item;
  const rest = hasAttribute ? positional.slice(1) : positional;
  const args = { positional: rest.slice(1), named };
  const test = rest.length > 0 ? tests(rest[0]) : null;
  const holds = (item: Value) => isTrue(test ? test(budget, item, args, options.escaping) : item);
  const iterator = iterate(budget, value);
  for (let next = iterator.next(); !next.done; next = iterator.next()) {
    budget.spend(4);
    if (holds(key(next.value)) === isWanted) yield next.value;
  }
}

interface SelectOptions {
  escaping: Escaping;
  hasAttribute: boolean;
  isWanted: boolean;
  /** A test by its name. */
  tests: (name: Value) => Filter;
}

export function selectFilters(tests: SelectOptions['tests']): [string, Filter][] {
  const made = (name: string, hasAttribute: boolean, isWanted: boolean): [string, Filter] => [
    name,
    (budget, value, args, escaping) =>
      lazy(budget, () => selected(budget, value, args, { escaping, hasAttribute, isWanted, tests })),
  ];
  return [
    made('select', false, true),
    made('reject', false, false),
    made('selectattr', true, true),
    made('rejectattr', true, false),
  ];
}

export function mapFilter(filters: (name: Value) => Filter): [string, Filter] {
  function* mapped(
    budget: Budget,
    value: Value,
    { positional, named }: Arguments,
    escaping: Escaping,
  ): Generator<Value> {
    if (!isTrue(value)) return;
    let of: Getter;
    if (positional.length === 0 && named.has('attribute')) {
      const unknown = [...named.keys()].find((name) => name !== 'attribute' && name !== 'default');
      if (unknown) throw new TemplateError(`Unexpected keyword argument '${unknown}'`);
      of = getter(budget, named.get('attribute')!, undefined, named.get('default') ?? null);
    } else {
      if (positional.length === 0) throw new TemplateError('map requires a filter argument');
      const [name, ...rest] = positional;
      const run = filters(name);
      const args = rest.length + named.size === 0 ? NO_ARGUMENTS : { positional: rest, named };
      of = (item) => run(budget, item, args, escaping);
    }
    const iterator = iterate(budget, value);
    for (let next = iterator.next(); !next.done; next = iterator.next()) {
      budget.spend(8);
      yield of(next.value);
    }
  }
  return ['map', (budget, value, args, escaping) => lazy(budget, () => mapped(budget, value, args, escaping))];
}

export const LIST_FILTERS: [string, Filter][] = [
  filter('list', [], listOf),
  filter('first', [], (budget, value) => {
    const next = iterate(budget, value).next();
    return next.done ? new Undefined('No first item, sequence was empty.') : next.value;
  }),
  filter('last', [], last),
  filter('reverse', [], (budget, value) => {
    if (tryIterate(budget, value)) return reversed(budget, value);
    throw new TemplateError('argument must be iterable');
  }),
  filter(
    'sort',
    ['reverse?', 'case_sensitive?', 'attribute?'],
    (budget, value, reverse = false, isSensitive, attribute = null) => {
      const paths = isString(attribute) ? textIn(attribute).split(',') : [attribute];
      const keys = paths.map((path) => getter(budget, path, caseOf(budget, isSensitive)));
      return sorted(budget, listOf(budget, value), (item) => keys.map((key) => key(item)), isReverse(reverse));
    },
  ),
  filter('unique', ['case_sensitive?', 'attribute?'], (budget, value, isSensitive, attribute = null) =>
    lazy(budget, () => unique(budget, value, getter(budget, attribute, caseOf(budget, isSensitive)))),
  ),
  filter('min', ['case_sensitive?', 'attribute?'], extreme(-1)),
  filter('max', ['case_sensitive?', 'attribute?'], extreme(1)),
  filter('sum', ['attribute?', 'start?'], total),
  filter('batch', ['linecount', 'fill_with?'], (budget, value, count, fill = null) =>
    lazy(budget, () => batches(budget, value, count!, fill)),
  ),
  filter('slice', ['slices', 'fill_with?'], (budget, value, count, fill = null) =>
    lazy(budget, () => slices(budget, value, toIndex(count!, 'a number of slices'), fill)),
  ),
  filter('groupby', ['attribute', 'default?', 'case_sensitive?'], (budget, value, attribute, otherwise, isSensitive) =>
    grouped(budget, value, attribute!, otherwise, isSensitive),
  ),
  filter('dictsort', ['case_sensitive?', 'by?', 'reverse?'], dictSorted),
  filter('items', [], (budget, value) =>
    lazy(budget, function* () {
      if (value instanceof Undefined) return;
      if (!(value instanceof Dict)) throw new TemplateError('Can only get item pairs from a mapping.');
      for (const entry of value.entries()) {
        budget.spend(4);
        yield new Tuple(entry);
      }
    }),
  ),
];
