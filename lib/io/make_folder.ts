// Folders that are written to.
import { mkdir, stat } from 'node:fs/promises';

/**
 * Makes a folder, and those above it, unless it is there.
 * @param what function or option that names it, for errors: which tell of a file in its place, and what else the system says
 */
export async function makeFolder(folder: string, what: string): Promise<void> {
  try {
    await mkdir(folder, { recursive: true });
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    const isFile = code === 'EEXIST' && (await stat(folder).catch(() => null)) !== null;
    const problem = isFile ? 'is a file, and a folder is to be written there' : `cannot be made: ${message}`;
    throw Object.assign(new Error(`${what}: ${folder} ${problem}`, { cause: error }), { code });
  }
}
