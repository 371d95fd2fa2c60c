// What is stored once: when it is used again, damage, other processes, full disks.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { mkdir, mkdtemp, readdir, rm, stat, utimes, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { TokenStore } from '../../lib/data/token_store.ts';
import { MACHINE } from '../../lib/io/whole_file.ts';
import { loadTokenizer, type Tokenizer } from '../../lib/text/tokenizer.ts';

let folder: string;
let bytes: Tokenizer;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'store-'));
  bytes = { ...(await loadTokenizer('bytes')), vocabSize: 258, beginOfText: [256], endOfText: 257 };
});
after(() => rm(folder, { recursive: true }));

async function fileOf(name: string, content: string): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, content);
  return path;
}

/** Opens and closes a store. */
async function openedOnce(path: string, cacheDir: string, options: object = {}) {
  const store = await TokenStore.open([path], bytes, { cacheDir, V: 258, ...options });
  const { fingerprint, offsets, records } = store;
  const ids = [...(await store.read(0, store.numTokens))];
  await store.close();
  return { fingerprint, offsets: [...offsets], records: [...records], ids };
}

describe('TokenStore, opened again', () => {
  it('is reused while files, tokenizer and options are the same', async () => {
    const path = await fileOf('reused.txt', 'abc');
    const cacheDir = join(folder, 'reused');
    await openedOnce(path, cacheDir);
    const [name] = await readdir(cacheDir);
    const { ino } = await stat(join(cacheDir, name!));
    await openedOnce(path, cacheDir);
    assert.equal((await stat(join(cacheDir, name!))).ino, ino, 'not built again');
    await openedOnce(path, cacheDir, { trainOnPrompts: true });
    assert.equal((await readdir(cacheDir)).length, 2);
    await writeFile(path, 'abcd');
    await openedOnce(path, cacheDir);
    assert.equal((await readdir(cacheDir)).length, 3);
  });

  it('notices another text of the same size and time', async () => {
    const path = await fileOf('same.txt', 'abc');
    const cacheDir = join(folder, 'same');
    await utimes(path, 1, 1);
    await openedOnce(path, cacheDir);
    await writeFile(path, 'abd');
    await utimes(path, 1, 1);
    assert.deepEqual((await openedOnce(path, cacheDir)).ids, [256, 97, 98, 100, 257]);
  });

  it('has a fingerprint of what is trained on', async () => {
    const [path, copy, other] = [await fileOf('a', 'ab'), await fileOf('b', 'ab'), await fileOf('c', 'ba')];
    const fingerprintOf = async (path: string, options: object = {}) =>
      (await openedOnce(path, await mkdtemp(join(folder, 'print-')), options)).fingerprint;
    const fingerprint = await fingerprintOf(path);
    const sha256 = (data: Int32Array | Float64Array | string) => createHash('sha256').update(data).digest('hex');
    const expected = sha256(`${sha256(Int32Array.of(256, 97, 98, 257))} ${sha256(Float64Array.of(0, 4))}`);
    assert.equal(fingerprint, expected);
    assert.equal(await fingerprintOf(copy), fingerprint);
    assert.notEqual(await fingerprintOf(other), fingerprint);
    const pair = await fileOf('pair.jsonl', '{"prompt":"a","completion":"b"}');
    assert.notEqual(await fingerprintOf(pair), fingerprint, 'the same ids, other marks');
    assert.equal(await fingerprintOf(pair, { trainOnPrompts: true }), fingerprint);
    const two = await fileOf('two.jsonl', '{"text":"a"}\n{"text":"b"}');
    assert.notEqual(
      await fingerprintOf(two),
      await fingerprintOf(await fileOf('one.jsonl', '{"text":"a"}')),
      'other borders',
    );
  });

  const damages: [string, string, (path: string) => Promise<void>][] = [
    ['tokens of zeros', 'tokens.bin', async (path) => writeFile(path, Buffer.alloc((await stat(path)).size))],
    [
      'one changed bit',
      'tokens.bin',
      async (path) =>
        writeFile(
          path,
          readFileSync(path).map((byte, i) => (i === 5 ? byte ^ 4 : byte)),
        ),
    ],
    ['tokens cut short', 'tokens.bin', (path) => writeFile(path, readFileSync(path).subarray(0, 8))],
    ['no tokens', 'tokens.bin', (path) => rm(path)],
    ['offsets of zeros', 'documents.bin', async (path) => writeFile(path, Buffer.alloc((await stat(path)).size))],
    ['no records', 'records.bin', (path) => rm(path)],
    ['records of another', 'records.bin', (path) => writeFile(path, new Float64Array(1).fill(1))],
    [
      'a store.json of a version without records',
      'store.json',
      (path) => writeFile(path, readFileSync(path, 'utf8').replace(/"numRecords":\d+,/, '')),
    ],
    ['an empty store.json', 'store.json', (path) => writeFile(path, '')],
    ['no store.json', 'store.json', (path) => rm(path)],
    [
      'counts of nonsense',
      'store.json',
      (path) => writeFile(path, '{"numTokens":1e300,"numDocuments":-7,"tokens":null}'),
    ],
    ['null', 'store.json', (path) => writeFile(path, 'null')],
  ];
  for (const [what, file, damage] of damages) {
    it(`is made again after damage: ${what}`, async () => {
      const path = await fileOf('damaged.txt', 'abc');
      const cacheDir = await mkdtemp(join(folder, 'damaged-'));
      const whole = await openedOnce(path, cacheDir);
      const [name] = await readdir(cacheDir);
      await damage(join(cacheDir, name!, file));
      assert.deepEqual(await openedOnce(path, cacheDir), whole);
      assert.deepEqual(await readdir(cacheDir), [name]);
    });
  }

  it('is made by several callers at once', async () => {
    const path = await fileOf('shared.txt', 'abc');
    const cacheDir = join(folder, 'shared');
    const all = await Promise.all(Array.from({ length: 4 }, () => openedOnce(path, cacheDir)));
    for (const one of all) assert.deepEqual(one, all[0]);
    assert.equal((await readdir(cacheDir)).length, 1);
  });

  it('removes what killed processes have left, and nothing else', async () => {
    const cacheDir = join(folder, 'left');
    const key = '0123456789abcdef';
    const { pid: dead } = spawnSync('true');
    const random = 'fedcba9876543210';
    const elsewhere = `${key}.00000000-${dead}-${random}.tmp`;
    const [left, former, ours, other] = [
      `${key}.${MACHINE}-${dead}-${random}.tmp`,
      `${key}.4242.tmp`,
      `${key}.${MACHINE}-${process.pid}-${random}.tmp`,
      'mine.tmp',
    ];
    for (const name of [left, former, ours, other, elsewhere]) await mkdir(join(cacheDir, name), { recursive: true });
    await writeFile(join(cacheDir, left, 'tokens.bin'), 'much');
    await openedOnce(await fileOf('left.txt', 'abc'), cacheDir);
    for (const name of [left, former]) assert.ok(!existsSync(join(cacheDir, name)), name);
    for (const name of [ours, other, elsewhere]) assert.ok(existsSync(join(cacheDir, name)), name);
    await utimes(join(cacheDir, ours), 1, 1); // older than this process
    await openedOnce(await fileOf('left2.txt', 'abc'), cacheDir);
    assert.ok(!existsSync(join(cacheDir, ours)));
  });

  it('ends with the path where the disk is full, and leaves nothing', async () => {
    const path = await fileOf('much.txt', 'The quick brown fox jumps over the lazy dog.\n'.repeat(10_000));
    const cacheDir = join(folder, 'full');
    const program = `
      const { TokenStore } = await import('./lib/data/token_store.ts');
      const { loadTokenizer } = await import('./lib/text/tokenizer.ts');
      const [path, cacheDir] = process.argv.slice(-2);
      await TokenStore.open([path], await loadTokenizer('bytes'), { cacheDir, V: 256 });`;
    // 1.8 MB of tokens where a file may have 1 MiB: the write fails as on a full disk.
    const command = [
      '-c',
      'ulimit -f 1024; exec "$@"',
      'sh',
      process.execPath,
      '--import=tsx',
      '--input-type=module',
      '-e',
      program,
    ];
    const { status, stderr } = spawnSync('bash', [...command, path, cacheDir], { encoding: 'utf8' });
    assert.equal(status, 1, stderr);
    assert.match(stderr, /full\/[^/]+\/tokens\.bin: cannot be written: EFBIG/);
    assert.deepEqual(await readdir(cacheDir), []);
  });
});
