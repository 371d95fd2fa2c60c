// Values of files in messages: short, whatever the file holds.

const MOST_CHARACTERS = 80;
const MOST_ENTRIES = 8;

/** A value as JSON, cut to some eighty characters; what is nested deeper than two levels is left out. */
export function brief(value: unknown): string {
  const text = describe(value, 2);
  return text.length > MOST_CHARACTERS ? `${text.slice(0, MOST_CHARACTERS)}…` : text;
}

/** A name of a file in a message, without quotes. */
export function briefName(name: string): string {
  return name.length > MOST_CHARACTERS ? `${name.slice(0, MOST_CHARACTERS)}…` : name;
}

function describe(value: unknown, depth: number): string {
  if (typeof value === 'string') return JSON.stringify(value.slice(0, MOST_CHARACTERS + 1));
  if (typeof value === 'bigint') return String(value);
  if (typeof value !== 'object' || value === null) return String(JSON.stringify(value));
  const isList = Array.isArray(value);
  if (depth === 0) return isList ? '[…]' : '{…}';
  const keys = Object.keys(value);
  const parts = keys.slice(0, MOST_ENTRIES).map((key) => {
    const entry = describe((value as Record<string, unknown>)[key], depth - 1);
    return isList ? entry : `${JSON.stringify(briefName(key))}:${entry}`;
  });
  if (keys.length > MOST_ENTRIES) parts.push('…');
  return isList ? `[${parts.join(',')}]` : `{${parts.join(',')}}`;
}
