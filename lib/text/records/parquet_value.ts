// Converts values of parquet columns to exactly equal JSON values, or throws.
import type { ParquetParsers, SchemaTree } from 'hyparquet';
import { Float, parseJson } from '../json.ts';

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function textOf(bytes: Uint8Array): string {
  try {
    return utf8.decode(bytes);
  } catch (error) {
    throw new Error('holds bytes that are not UTF-8 text', { cause: error });
  }
}

/**
 * Replace the library's parsers, which put U+FFFD for bad bytes, round integers of JSON and cut times to milliseconds. Times become ISO
 * 8601.
 */
export const PARSERS: Partial<ParquetParsers> = {
  stringFromBytes: (bytes) => bytes && textOf(bytes),
  jsonFromBytes: (bytes) => bytes && parseJson(textOf(bytes)),
  timestampFromMilliseconds: (count) => isoTime(BigInt(count) * 1_000_000n),
  timestampFromMicroseconds: (count) => isoTime(BigInt(count) * 1000n),
  timestampFromNanoseconds: (count) => isoTime(BigInt(count)),
  dateFromDays: (days) => new Date(days * 86_400_000).toISOString().slice(0, 10),
};

function isoTime(nanoseconds: bigint): string {
  const rest = ((nanoseconds % 1_000_000n) + 1_000_000n) % 1_000_000n; // the part below a millisecond
  const time = new Date(Number((nanoseconds - rest) / 1_000_000n)).toISOString();
  if (rest === 0n) return time;
  const digits = String(rest).padStart(6, '0').replace(/000$/, '');
  return time.replace('Z', `${digits}Z`);
}

/** Types that the library does not read, or reads as other numbers. */
const REFUSED = new Set([
  'DECIMAL',
  'INTERVAL',
  'BSON',
  'TIME',
  'TIME_MILLIS',
  'TIME_MICROS',
  'VARIANT',
  'GEOMETRY',
  'GEOGRAPHY',
]);

/** Throws an Error for a column whose type is not supported. */
export function checkColumn({ element, children, path }: SchemaTree): void {
  const refused = [element.converted_type, element.logical_type?.type].find((type) => REFUSED.has(String(type)));
  if (refused)
    throw new Error(
      `column ${path.join('.')} is of type ${refused}, which is not supported; store it as text or as DOUBLE`,
    );
  children.forEach(checkColumn);
}

/**
 * Converts a value of the library. Leaves out null fields of structs, since all rows of a table have the same struct, except the content of
 * messages.
 */
export function toJsonValue(value: unknown, node: SchemaTree): unknown {
  const { element, children } = node;
  if (value === null || value === undefined) return null;
  if (Array.isArray(value) && (children.length > 0 || element.repetition_type === 'REPEATED')) {
    const item = itemOf(node);
    return value.map((one) => toJsonValue(one, item));
  }
  if (children.length > 0) return structOf(value as Record<string, unknown>, node);
  if (value instanceof Uint8Array) return textOf(value);
  const isFloat = element.type === 'DOUBLE' || element.type === 'FLOAT';
  return isFloat && Number.isInteger(value) ? new Float(value as number) : value;
}

/** The schema of a list's items: for a LIST, which has a repeated group of one element, that element; for a repeated field, the field. */
function itemOf(node: SchemaTree): SchemaTree {
  const [repeated] = node.children;
  if (node.element.repetition_type === 'REPEATED' || repeated?.element.repetition_type !== 'REPEATED') {
    return { ...node, element: { ...node.element, repetition_type: 'REQUIRED' } };
  }
  return repeated.children.length === 1 ? repeated.children[0]! : itemOf(repeated);
}

function structOf(value: Record<string, unknown>, { children }: SchemaTree): Record<string, unknown> {
  const [repeated] = children;
  const isMap = repeated?.element.repetition_type === 'REPEATED' && repeated.children.length === 2;
  const nodeOf = (name: string) =>
    isMap ? repeated.children[1]! : children.find(({ element }) => element.name === name)!;
  const fields = Object.entries(value).filter(([name, field]) => (field ?? null) !== null || name === 'content');
  return Object.fromEntries(fields.map(([name, field]) => [name, toJsonValue(field, nodeOf(name))]));
}
