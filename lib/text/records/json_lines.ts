// JSON lines: one object per line.
import { parseJson } from '../json.ts';
import { linesOf, type Source } from './bytes.ts';
import type { Row } from './record.ts';

/** Yields the objects of a file. Skips empty lines. */
export async function* jsonLines(source: Source): AsyncGenerator<Row> {
  for await (const { line, number } of linesOf(source)) {
    if (line.trim() !== '') yield rowOf(line, `${source.path}:${number}`);
  }
}

/** An escape for half a surrogate pair. */
const SURROGATE = /\\u[dD][89a-fA-F]/;

/** @param place file and line, or element of a list */
export function rowOf(text: string, place: string): Row {
  let value: unknown;
  try {
    value = parseJson(text);
  } catch (error) {
    throw new Error(`${place}: is not JSON: ${(error as Error).message}`, { cause: error });
  }
  const half = SURROGATE.test(text) ? halfCharacter(value) : null;
  if (half !== null) throw new Error(`${place}: holds half a surrogate pair, \\u${half}, which UTF-8 cannot encode`);
  return { value, place };
}

/** The first surrogate without its other half, in hexadecimal; null if there is none. */
function halfCharacter(value: unknown): string | null {
  const waiting = [value];
  while (waiting.length > 0) {
    const one = waiting.pop();
    if (typeof one === 'string') {
      const [half] = /\p{Surrogate}/u.exec(one) ?? [];
      if (half !== undefined) return half.charCodeAt(0).toString(16);
    } else if (typeof one === 'object' && one !== null) {
      for (const [key, field] of Object.entries(one)) waiting.push(key, field);
    }
  }
  return null;
}
