// One JSON object a line.
import { parseJson } from '../json.ts';
import { linesOf, type Source } from './bytes.ts';
import type { Row } from './record.ts';

/** Lines that are empty are passed over. */
export async function* jsonLines(source: Source): AsyncGenerator<Row> {
  for await (const { line, number } of linesOf(source)) {
    if (line.trim() !== '') yield rowOf(line, `${source.path}:${number}`);
  }
}

/** @param place file and line, or element of a list */
export function rowOf(text: string, place: string): Row {
  try {
    return { value: parseJson(text), place };
  } catch (error) {
    throw new Error(`${place}: is not JSON: ${(error as Error).message}`, { cause: error });
  }
}
