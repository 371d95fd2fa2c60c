// Patterns of paths: * ? [abc] {a,b}, and ** for folders of any depth. Node 20 has no function for them.
import { readdir, realpath, stat } from 'node:fs/promises';
import { join } from 'node:path';

export const isPattern = (path: string) => /[*?[{]/.test(path);

/** All paths that match, sorted. Names that begin with a dot only match a pattern that begins with one. */
export async function globPaths(pattern: string): Promise<string[]> {
  const found = new Set<string>();
  for (const one of alternatives(pattern)) {
    const root = one.startsWith('/') ? '/' : '';
    await walk(
      root,
      one
        .replace(/(^|\/)\*\*\/?$/, '$1**/*')
        .split('/')
        .filter((segment) => segment !== ''),
      found,
      new Set(),
    );
  }
  return [...found].sort();
}

/** Expands a{b,c}d to abd and acd. */
function alternatives(pattern: string): string[] {
  const close = pattern.indexOf('}');
  const open = pattern.lastIndexOf('{', close);
  if (close < 0 || open < 0) return [pattern];
  const [before, after] = [pattern.slice(0, open), pattern.slice(close + 1)];
  const all = pattern.slice(open + 1, close).split(',');
  return all.flatMap((one) => alternatives(before + one + after));
}

async function walk(folder: string, [segment, ...rest]: string[], found: Set<string>, entered: ReadonlySet<string>) {
  if (segment === undefined) {
    if (folder !== '') found.add(folder);
    return;
  }
  if (segment === '**') {
    await walk(folder, rest, found, entered);
    const real = await realpath(folder || '.');
    if (entered.has(real)) return; // links may form circles
    for (const name of await namesIn(folder)) {
      const path = join(folder, name);
      if (!name.startsWith('.') && (await isFolder(path))) {
        await walk(path, [segment, ...rest], found, new Set([...entered, real]));
      }
    }
    return;
  }
  if (!isPattern(segment)) {
    const path = join(folder, segment);
    if (await exists(path)) await walk(path, rest, found, entered);
    return;
  }
  const matches = matcherOf(segment);
  for (const name of await namesIn(folder)) {
    if (matches.test(name) && (segment.startsWith('.') || !name.startsWith('.'))) {
      await walk(join(folder, name), rest, found, entered);
    }
  }
}

/** A pattern for one name of a path. */
function matcherOf(segment: string): RegExp {
  const parts = segment.replace(/\*+/g, '*').match(/\[[!^]?\]?[^\]]*\]|./gs) ?? [];
  const source = parts.map((part) => {
    if (part === '*') return '.*';
    if (part === '?') return '.';
    if (part.length > 1) {
      const not = /^\[[!^]/.test(part);
      return `[${not ? '^' : ''}${part.slice(not ? 2 : 1, -1).replace(/[\\\]^[]/g, '\\$&')}]`;
    }
    return part.replace(/[\\^$.|?*+()[\]{}]/g, '\\$&');
  });
  try {
    return new RegExp(`^${source.join('')}$`, 'su');
  } catch (error) {
    throw new Error(`${segment}: is not a valid pattern: ${(error as Error).message}`, { cause: error });
  }
}

async function namesIn(folder: string): Promise<string[]> {
  return (await isFolder(folder || '.')) ? await readdir(folder || '.') : [];
}

async function isFolder(path: string): Promise<boolean> {
  return (await stat(path).catch(() => null))?.isDirectory() ?? false;
}

const exists = (path: string) =>
  stat(path).then(
    () => true,
    () => false,
  );
