// Converts values to text like Python.
import { Float, formatFloat, formatJson } from '../json.ts';
import type { Budget } from './budget.ts';
import { quote } from './characters.ts';
import { Dict, DictView } from './dict.ts';
import { TemplateError } from './errors.ts';
import { toMarkup } from './html.ts';
import { isFloat, Markup, Obj, Tuple, typeName, Undefined, type Value } from './values.ts';

/** str(value) */
export function str(budget: Budget, value: Value): string {
  if (typeof value === 'string') return value;
  if (value instanceof Markup) return value.text;
  if (value instanceof Undefined) return '';
  return repr(budget, value);
}

/** Converts a value to text. Markup stays Markup. */
export const softText = (budget: Budget, value: Value): string | Markup =>
  value instanceof Markup ? value : str(budget, value);

/** Converts a value to HTML. */
export const escaped = (budget: Budget, value: Value): Markup => toMarkup(softText(budget, value));

/** repr(value) */
export function repr(budget: Budget, value: Value): string {
  budget.spend(1);
  if (typeof value === 'string') {
    budget.text(value.length);
    return quote(value);
  }
  if (value === null) return 'None';
  if (typeof value === 'boolean') return value ? 'True' : 'False';
  if (isFloat(value)) return formatFloat(Number(value));
  if (typeof value === 'number' || typeof value === 'bigint') return integerText(value);
  if (Array.isArray(value)) return `[${listed(budget, value)}]`;
  if (value instanceof Tuple) return `(${listed(budget, value.items)}${value.items.length === 1 ? ',' : ''})`;
  if (value instanceof Dict) {
    const entries = [...value.entries()];
    return `{${listed(budget, entries, ([key, one]) => `${repr(budget, key)}: ${repr(budget, one)}`)}}`;
  }
  if (value instanceof DictView) return `${value.typeName}([${listed(budget, [...value.iterate(budget)])}])`;
  return (value as Obj).repr(budget);
}

function listed<T = Value>(budget: Budget, items: readonly T[], of = (one: T) => repr(budget, one as Value)): string {
  const text = items.map(of).join(', ');
  budget.text(text.length);
  return text;
}

function integerText(value: number | bigint): string {
  const text = String(value);
  if (text.length > 4300) throw new TemplateError('an int of more than 4300 digits cannot become text');
  return text;
}

export interface JsonOptions {
  ensureAscii: boolean;
  indent: string | null;
  separators: [item: string, key: string] | null;
  sortKeys: boolean;
}

/** json.dumps(value) */
export function toJson(
  budget: Budget,
  value: Value,
  { ensureAscii, indent, separators, sortKeys }: JsonOptions,
): string {
  const [itemSeparator, keySeparator] = separators ?? [indent === null ? ', ' : ',', ': '];
  const text = formatJson(plainOf(budget, value), { ensureAscii, indent, itemSeparator, keySeparator, sortKeys });
  budget.text(text.length);
  return text;
}

/** Converts a value to one that formatJson accepts. */
function plainOf(budget: Budget, value: Value): unknown {
  budget.spend(1);
  if (typeof value === 'string') {
    budget.text(value.length);
    return value;
  }
  if (value instanceof Markup) return value.text;
  const items = value instanceof Tuple ? value.items : value;
  if (Array.isArray(items)) {
    budget.container(items.length);
    return items.map((item) => plainOf(budget, item));
  }
  if (value instanceof Dict) {
    budget.container(value.length * 4);
    const fields = [...value.entries()].map(([key, field]): [string, unknown] => [
      keyText(key),
      plainOf(budget, field),
    ]);
    // Python writes both of two keys that become equal texts, such as 1 and "1".
    if (new Set(fields.map(([key]) => key)).size < fields.length) throw new TemplateError('JSON with a key twice');
    return new Map(fields);
  }
  if (value instanceof Obj && !(value instanceof Float)) {
    throw new TemplateError(`Object of type ${typeName(value)} is not JSON serializable`);
  }
  return value;
}

function keyText(key: Value): string {
  if (typeof key === 'string') return key;
  if (key instanceof Markup) return key.text;
  if (key === null || typeof key === 'boolean' || typeof key === 'bigint') return String(key);
  if (typeof key === 'number' || key instanceof Float) return formatJson(key);
  throw new TemplateError(`keys must be str, int, float, bool or None, not ${typeName(key)}`);
}
