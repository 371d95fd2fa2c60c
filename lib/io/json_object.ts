// Small, untrusted JSON files that hold one object.
import { open } from 'node:fs/promises';
import { parseModelJson } from './json.ts';

/** Far more bytes than any configuration has. */
const MAX_BYTES = 16 * 2 ** 20;

/** The object; null if there is no such file. Throws if the file holds something else, or more than 16 MiB. */
export async function readJsonObject(path: string): Promise<Record<string, unknown> | null> {
  const text = await readText(path);
  if (text === null) return null;
  let value: unknown;
  try {
    value = parseModelJson(text);
  } catch (error) {
    throw new Error(`${path}: is not JSON: ${(error as Error).message.slice(0, 200)}`, { cause: error });
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new Error(`${path}: is not a JSON object`);
  }
  return value as Record<string, unknown>;
}

async function readText(path: string): Promise<string | null> {
  try {
    await using handle = await open(path, 'r');
    const { size } = await handle.stat();
    if (size > MAX_BYTES) throw new Error(`${path}: has ${size} bytes, over the limit of ${MAX_BYTES}`);
    return await handle.readFile('utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}
