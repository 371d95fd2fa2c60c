// The filters of jinja2, with tojson like that of transformers, and its tests.

import { hash } from './dict.ts';
import { TemplateError } from './errors.ts';
import type { Filter } from './filters/define.ts';
import { getter, LIST_FILTERS, mapFilter, selectFilters } from './filters/lists.ts';
import { joinFilter, TEXT_FILTERS } from './filters/texts.ts';
import { VALUE_FILTERS } from './filters/values.ts';
import { test, VALUE_TESTS } from './tests.ts';
import { isString, textIn, type Value } from './values.ts';

function named(table: ReadonlyMap<string, Filter>, kind: string): (name: Value) => Filter {
  return (name) => {
    const found = isString(name) ? table.get(textIn(name)) : undefined;
    if (found) return found;
    throw new TemplateError(`no ${kind} named '${isString(name) ? textIn(name) : '?'}'`);
  };
}

/** The tests: `value is name(…)`. */
export const TESTS: ReadonlyMap<string, Filter> = new Map<string, Filter>([
  ...VALUE_TESTS,
  ...test('filter', [], (_, value) => FILTERS.has(hash(value) as string)),
  ...test('test', [], (_, value) => TESTS.has(hash(value) as string)),
]);

export const FILTERS: ReadonlyMap<string, Filter> = new Map<string, Filter>([
  ...VALUE_FILTERS,
  ...TEXT_FILTERS,
  ...LIST_FILTERS,
  joinFilter(getter),
  mapFilter((name) => named(FILTERS, 'filter')(name)),
  ...selectFilters(named(TESTS, 'test')),
]);
