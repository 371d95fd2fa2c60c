// A .json file: one list of records, an object that has one, or several values (JSON lines under this name).
import { type Source, textOf } from './bytes.ts';
import { KNOWN_FIELDS } from './forms.ts';
import { rowOf } from './json_lines.ts';
import { valuesOf } from './json_values.ts';
import type { Row } from './record.ts';

export async function* jsonFile(source: Source): AsyncGenerator<Row> {
  const { path } = source;
  let first: Row | null = null; // a value outside a list, until another follows
  let isSequence = false;
  for await (const { bytes, index, line } of valuesOf(source)) {
    const place = index === null ? `${path}:${line}` : `${path}[${index}]`;
    const row = rowOf(textOf(bytes, place, false), place);
    if (index !== null || isSequence) {
      yield row;
    } else if (first === null) {
      first = row;
    } else {
      isSequence = true;
      yield first;
      yield row;
    }
  }
  if (first && !isSequence) yield* withinObject(first, path);
}

/**
 * Yields the records of { "data": [ … ] } and the like: those of the only field that holds a list of objects. An object with a field of a
 * record is a record itself.
 */
function* withinObject(row: Row, path: string): Generator<Row> {
  const fields = Object.entries((row.value ?? {}) as Record<string, unknown>);
  const isObject = (one: unknown) => typeof one === 'object' && one !== null && !Array.isArray(one);
  const lists = fields.filter(([, list]) => Array.isArray(list) && list.length > 0 && list.every(isObject));
  if (!isObject(row.value) || lists.length === 0 || fields.some(([name]) => KNOWN_FIELDS.has(name))) {
    yield row;
    return;
  }
  if (lists.length > 1) {
    const names = lists.map(([name]) => JSON.stringify(name)).join(' and ');
    throw new Error(`${path}: has several lists, ${names}; write the one to train on to a separate file`);
  }
  const [name, list] = lists[0] as [string, unknown[]];
  for (const [i, value] of list.entries()) yield { value, place: `${path}: ${name}[${i}]` };
}
