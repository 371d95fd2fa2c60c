// What to say of options that there are not.
import { z } from 'zod';
import { isRenamed, RENAMED_OPTIONS } from './renamed_options.ts';

/** What is wrong with keys that the schema does not have, at `path`, and which ones may be meant. */
export function unknownKeys(schema: z.ZodType, { keys, path }: { keys: string[]; path: PropertyKey[] }): string {
  const known = knownKeys(schema, path);
  return keys
    .map((key) => {
      if (path.length === 0 && isRenamed(key)) return `${key}: is named ${RENAMED_OPTIONS[key]} now`;
      const near = known.find((candidate) => distance(candidate.toLowerCase(), key.toLowerCase()) <= 2);
      const full = [...path, key].join('.');
      return `${full}: is not an option${near ? `; did you mean ${near}?` : `; options are ${known.join(', ')}`}`;
    })
    .join('; ');
}

/** Keys of the object at `path`. */
function knownKeys(schema: z.ZodType, path: PropertyKey[]): string[] {
  let part: unknown = z.toJSONSchema(schema, { io: 'input', unrepresentable: 'any' });
  for (const key of path) part = (part as { properties?: Record<PropertyKey, unknown> }).properties?.[key];
  return Object.keys((part as { properties?: object } | undefined)?.properties ?? {});
}

/** Levenshtein distance. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const before = row;
    row = [i];
    for (let j = 1; j <= b.length; j++) {
      row.push(Math.min(before[j]! + 1, row[j - 1]! + 1, before[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1)));
    }
  }
  return row[b.length]!;
}
