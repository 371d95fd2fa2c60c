// The layers of lib/ look down only, and no module imports itself by way of others; docs/architecture.md describes the layers.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import ts from 'typescript';

/** From the lowest to the highest. A file beside the folders is a layer of its own. */
const LAYERS = [
  'brief.ts',
  'runtime',
  'ranks',
  'autograd',
  'ops',
  'models',
  'objectives',
  'optim',
  'step',
  'io',
  'text',
  'data',
  'generate',
  'export',
  'report',
  'train',
  'cli',
  'index.ts',
];

/** Modules below lib/ and what they import, types too, by paths from there. */
type Imports = ReadonlyMap<string, readonly string[]>;

function importsOf(folder: string): Imports {
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.ts'));
  return new Map(
    files.map((file) => {
      const { importedFiles } = ts.preProcessFile(readFileSync(join(folder, file), 'utf8'), true, true);
      const own = importedFiles.map(({ fileName }) => fileName).filter((name) => name.startsWith('.'));
      return [file, own.map((name) => join(file, '..', name))];
    }),
  );
}

const layerOf = (file: string) => LAYERS.indexOf(file.split('/')[0]!);

function upward(imports: Imports): string[] {
  return [...imports].flatMap(([file, targets]) =>
    targets.filter((target) => layerOf(target) > layerOf(file)).map((target) => `${file} imports ${target}`),
  );
}

/** A path from a module back to itself for each that has one. */
function circles(imports: Imports): string[] {
  const found: string[] = [];
  const done = new Set<string>();
  const visit = (file: string, path: string[]) => {
    const start = path.indexOf(file);
    if (start >= 0) found.push([...path.slice(start), file].join(' > '));
    if (start >= 0 || done.has(file)) return;
    for (const target of imports.get(file) ?? []) visit(target, [...path, file]);
    done.add(file);
  };
  for (const file of imports.keys()) visit(file, []);
  return found;
}

describe('the layers of lib/', () => {
  const imports = importsOf('lib');

  it('are all known', () => {
    assert.deepEqual(
      [...imports.keys()].filter((file) => layerOf(file) < 0),
      [],
    );
  });

  it('import only what lies below them', () => {
    assert.deepEqual(upward(imports), []);
  });

  it('have no circles of modules', () => {
    assert.deepEqual(circles(imports), []);
  });

  it('would be told apart from others', () => {
    const wrong: Imports = new Map([
      ['ops/a.ts', ['train/b.ts']],
      ['train/b.ts', ['train/c.ts', 'ops/a.ts']],
      ['train/c.ts', ['train/b.ts']],
    ]);
    assert.deepEqual(upward(wrong), ['ops/a.ts imports train/b.ts']);
    assert.deepEqual(circles(wrong), ['train/b.ts > train/c.ts > train/b.ts', 'ops/a.ts > train/b.ts > ops/a.ts']);
  });
});
