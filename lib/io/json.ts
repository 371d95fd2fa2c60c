// Small JSON files: written atomically, and read with errors that say what is there instead.
import { open } from 'node:fs/promises';
import { describeOther } from './other_files.ts';
import { writeWhole } from './whole_file.ts';

export async function writeJson(path: string, value: unknown): Promise<void> {
  await writeWhole(path, (handle) => handle.writeFile(`${JSON.stringify(value, null, 2)}\n`));
}

/** Size limit of config.json and of an index of shards: a hundred times the largest known ones. */
const MAX_BYTES = 64 * 2 ** 20;

/** The text of a small file. */
export async function readSmallFile(path: string): Promise<string> {
  const handle = await open(path, 'r');
  try {
    const { size } = await handle.stat();
    if (size > MAX_BYTES) throw new RangeError(`${path}: ${size} bytes are over the limit of ${MAX_BYTES}`);
    return await handle.readFile('utf8');
  } finally {
    await handle.close();
  }
}

/**
 * Parses the text of a JSON file of a model or a tokenizer.
 * @throws SyntaxError also for a byte order mark: transformers and its tokenizers refuse it, and files are carried to what is saved
 */
export function parseModelJson(text: string): unknown {
  if (text.startsWith('\ufeff'))
    throw new SyntaxError(
      'it begins with a byte order mark, which transformers refuses too: save it as UTF-8 without one',
    );
  return JSON.parse(text);
}

/** Parses a JSON file of a model's folder. If it is something else that is known, the error says what. */
export function parseJsonFile(path: string, text: string): unknown {
  try {
    return parseModelJson(text);
  } catch (error) {
    const other = describeOther(text);
    const { message } = error as Error;
    throw new Error(`${path}: ${other ? `is ${other}` : `cannot be read: not JSON: ${message.slice(0, 200)}`}`, {
      cause: error,
    });
  }
}
