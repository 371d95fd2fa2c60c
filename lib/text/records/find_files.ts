// Finds the files that a list of paths, folders and patterns names.
import { readdir, realpath, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { formatOf } from './formats.ts';
import { globPaths, isPattern } from './glob.ts';

/**
 * Files in the order of the list; those of a folder or pattern in the order of their paths. A pattern may have * ? [abc] {a,b}, and ** for
 * folders of any depth. Throws an Error for what does not exist, matches nothing, or leaves open which files are data.
 */
export async function findFiles(named: readonly string[]): Promise<string[]> {
  const found: string[] = [];
  for (const path of named) {
    const stats = await statOf(path);
    if (stats?.isDirectory()) found.push(...(await filesOfFolder(path)));
    else if (stats?.isFile()) found.push(path);
    else if (stats) throw new Error(`${path}: is neither a file nor a folder`);
    else found.push(...(await filesOfPattern(path)));
  }
  return found;
}

async function filesOfPattern(pattern: string): Promise<string[]> {
  if (!isPattern(pattern)) throw new Error(`${pattern}: cannot be read: ENOENT: there is no such file or folder`);
  const files: string[] = [];
  for (const path of await globPaths(pattern)) {
    if ((await statOf(path))?.isFile()) files.push(path);
  }
  if (files.length === 0) throw new Error(`${pattern}: matches no file`);
  return files;
}

/** Null if the path does not exist. */
async function statOf(path: string) {
  try {
    return await stat(path);
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes((error as NodeJS.ErrnoException).code ?? '')) return null;
    throw new Error(`${path}: cannot be read: ${(error as Error).message}`, { cause: error });
  }
}

/** All files in a folder, at any depth, except hidden ones. Throws if some are no data, or if some hold records and others text. */
async function filesOfFolder(folder: string): Promise<string[]> {
  const files = (await within(folder, new Set())).sort();
  if (files.length === 0) throw new Error(`${folder}: holds no files`);
  const isRecords = (path: string) => !['text', 'other'].includes(formatOf(path).kind);
  const other = files.find((path) => formatOf(path).kind === 'other');
  const [records, text] = [files.find(isRecords), files.find((path) => formatOf(path).kind === 'text')];
  if (records && (text ?? other)) {
    throw new Error(
      `${folder}: holds ${records} and ${text ?? other}; give a pattern such as ${join(folder, '**/*.jsonl')}`,
    );
  }
  return files;
}

/** @param entered the folders around this one: links may form circles */
async function within(folder: string, entered: ReadonlySet<string>): Promise<string[]> {
  const real = await realpath(folder);
  if (entered.has(real)) return [];
  const files: string[] = [];
  for (const name of await readdir(folder)) {
    if (name.startsWith('.')) continue;
    const path = join(folder, name);
    const stats = await statOf(path);
    if (stats?.isDirectory()) files.push(...(await within(path, new Set([...entered, real]))));
    else if (stats?.isFile()) files.push(path);
    else if (!stats) throw new Error(`${path}: is a link to a file that does not exist`);
  }
  return files;
}
