// Small JSON files: written whole or not at all, read with an error that says what they are.
import { describeOther } from './other_files.ts';
import { writeWhole } from './whole_file.ts';

export async function writeJson(path: string, value: unknown): Promise<void> {
  await writeWhole(path, (handle) => handle.writeFile(`${JSON.stringify(value, null, 2)}\n`));
}

/** Parses a file of a model's folder; says what else stands in its place. */
export function parseJsonFile(path: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    const other = describeOther(text);
    const { message } = error as Error;
    throw new Error(`${path}: ${other ? `is ${other}` : `cannot be read: not JSON: ${message.slice(0, 200)}`}`, {
      cause: error,
    });
  }
}
