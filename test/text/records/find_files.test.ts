// Files, folders and patterns.
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { findFiles } from '../../../lib/text/records/find_files.ts';

let root: string;
before(() => {
  root = mkdtempSync(join(tmpdir(), 'find-'));
});
after(() => rmSync(root, { recursive: true }));

/** A folder with these files. */
function folderOf(name: string, files: string[]): string {
  for (const file of files) {
    const path = join(root, name, file);
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, 'x');
  }
  return join(root, name);
}

const found = async (...named: string[]) =>
  (await findFiles(named.map((one) => join(root, one)))).map((path) => path.slice(root.length + 1));

describe('findFiles', () => {
  before(() => {
    folderOf('tree', [
      'b.jsonl',
      'a.jsonl',
      'a10.jsonl',
      'c.txt',
      '.hidden.jsonl',
      'sub/a.jsonl',
      'sub/deep/d.jsonl.gz',
      '.git/e.jsonl',
      '[x].jsonl',
    ]);
    folderOf('records', ['z.jsonl', 'a.csv', 'sub/m.parquet', '.gitattributes']);
    folderOf('texts', ['b.md', 'a.txt', 'x.py']);
  });

  it('keeps files as they are named, and in their order', async () => {
    assert.deepEqual(await found('tree/b.jsonl', 'tree/a.jsonl', 'tree/b.jsonl'), [
      'tree/b.jsonl',
      'tree/a.jsonl',
      'tree/b.jsonl',
    ]);
    assert.deepEqual(await found('tree/[x].jsonl'), ['tree/[x].jsonl'], 'a name, though it looks like a pattern');
  });

  it('takes all files of a folder, sorted, but hidden ones', async () => {
    assert.deepEqual(await found('records'), ['records/a.csv', 'records/sub/m.parquet', 'records/z.jsonl']);
    assert.deepEqual(await found('texts/'), ['texts/a.txt', 'texts/b.md', 'texts/x.py']);
  });

  for (const [pattern, expected] of [
    ['tree/*.jsonl', ['[x].jsonl', 'a.jsonl', 'a10.jsonl', 'b.jsonl']],
    ['tree/a*.jsonl', ['a.jsonl', 'a10.jsonl']],
    ['tree/?.jsonl', ['a.jsonl', 'b.jsonl']],
    ['tree/[ac].*', ['a.jsonl', 'c.txt']],
    ['tree/[!a-b].*', ['c.txt']],
    ['tree/{b,c}.{jsonl,txt}', ['b.jsonl', 'c.txt']],
    ['tree/**/*.jsonl*', ['[x].jsonl', 'a.jsonl', 'a10.jsonl', 'b.jsonl', 'sub/a.jsonl', 'sub/deep/d.jsonl.gz']],
    ['tree/**/a.jsonl', ['a.jsonl', 'sub/a.jsonl']],
    ['tree/*/a.jsonl', ['sub/a.jsonl']],
    ['tree/.*.jsonl', ['.hidden.jsonl']],
    ['tree/**', ['[x].jsonl', 'a.jsonl', 'a10.jsonl', 'b.jsonl', 'c.txt', 'sub/a.jsonl', 'sub/deep/d.jsonl.gz']],
    ['tr*/{sub/{a,deep/*}.jsonl*,c.txt}', ['c.txt', 'sub/a.jsonl', 'sub/deep/d.jsonl.gz']],
  ] as const) {
    it(`finds what matches ${pattern}`, async () => {
      assert.deepEqual(
        await found(pattern),
        expected.map((name) => `tree/${name}`),
      );
    });
  }

  it('follows links, and ends where they go in circles', async () => {
    const folder = folderOf('linked', ['a.jsonl']);
    symlinkSync(folder, join(folder, 'circle'));
    symlinkSync(join(folder, 'a.jsonl'), join(folder, 'b.jsonl'));
    assert.deepEqual(await found('linked'), ['linked/a.jsonl', 'linked/b.jsonl']);
    assert.ok((await found('linked/**/*.jsonl')).includes('linked/b.jsonl'));
    symlinkSync(join(folder, 'gone'), join(folder, 'c.jsonl'));
    await assert.rejects(found('linked'), /c\.jsonl: is a link to a file that does not exist$/);
  });

  it('names what is not there or leaves open what is data', async () => {
    await assert.rejects(found('gone.jsonl'), /gone\.jsonl: cannot be read: ENOENT/);
    await assert.rejects(found('tree/*.csv'), /tree\/\*\.csv: matches no file$/);
    await assert.rejects(found('tree/[b-a].txt'), /\[b-a\]\.txt: is not a valid pattern/);
    folderOf('mixed', ['README.md', 'data.jsonl']);
    await assert.rejects(
      found('mixed'),
      /mixed: holds .*data\.jsonl and .*README\.md; give a pattern such as .*mixed\/\*\*\/\*\.jsonl$/,
    );
    folderOf('yaml', ['a.jsonl', 'b.yaml']);
    await assert.rejects(found('yaml'), /yaml\/b\.yaml: \.yaml is not supported/);
    mkdirSync(join(root, 'empty'));
    await assert.rejects(found('empty'), /empty: holds no files$/);
    await assert.rejects(findFiles(['/dev/null']), /\/dev\/null: is neither a file nor a folder$/);
  });
});
