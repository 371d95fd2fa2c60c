// Models in shards: an index that is true of its files, and every way not to be.
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { openModelFolder } from '../../lib/io/model_folder.ts';
import { newFolder } from '../support/runs.ts';
import { entry, fileOf, rejectsWith } from '../support/safetensors.ts';

describe('sharded models', () => {
  const shard = (...names: string[]) =>
    fileOf(Object.fromEntries(names.map((name, i) => [name, entry('U8', [1], i, i + 1)])), names.length);
  const indexName = 'model.safetensors.index.json';

  /** A model's folder of these files; text or bytes. */
  async function modelOf(files: Record<string, string | Uint8Array>): Promise<string> {
    const model = newFolder();
    for (const [name, content] of Object.entries(files)) await writeFile(join(model, name), content);
    return model;
  }
  const indexOf = (map: unknown) => JSON.stringify({ weight_map: map });

  it('finds each tensor in its shard', async () => {
    const model = await modelOf({
      [indexName]: indexOf({ a: '1.safetensors', b: '1.safetensors', c: '2.safetensors' }),
      '1.safetensors': shard('a', 'b'),
      '2.safetensors': shard('c'),
    });
    const files = await openModelFolder(model);
    assert.deepEqual([...files.keys()], ['a', 'b', 'c']);
    assert.equal(files.get('c')!.path, join(model, '2.safetensors'));
    assert.equal(files.get('a'), files.get('b'));
    for (const file of new Set(files.values())) await file.close();
  });

  it('a tensor in two shards', async () => {
    const model = await modelOf({
      [indexName]: indexOf({ a: '1.safetensors', b: '2.safetensors' }),
      '1.safetensors': shard('a'),
      '2.safetensors': shard('b', 'a'),
    });
    await rejectsWith(
      () => openModelFolder(model),
      join(model, '2.safetensors'),
      "'a'",
      `${join(model, '1.safetensors')}`,
    );
  });

  it('an index that names another shard than the one that has the tensor', async () => {
    const model = await modelOf({
      [indexName]: indexOf({ a: '1.safetensors', b: '2.safetensors', c: '2.safetensors' }),
      '1.safetensors': shard('a', 'b'),
      '2.safetensors': shard('c'),
    });
    await rejectsWith(() => openModelFolder(model), join(model, '2.safetensors'), "'b'");
  });

  for (const name of ['..', '.', '', '../other.safetensors', '/etc/passwd', 'a/b.safetensors', 7, null]) {
    it(`${JSON.stringify(name)} for a shard`, async () => {
      const model = await modelOf({ [indexName]: indexOf({ a: name }) });
      await rejectsWith(() => openModelFolder(model), join(model, indexName), JSON.stringify(name));
    });
  }

  for (const [text, part] of [
    ['{', 'not JSON'],
    ['null', 'no weight_map'],
    ['{}', 'no weight_map'],
  ] as const) {
    it(`${text} for an index`, async () => {
      const model = await modelOf({ [indexName]: text });
      await rejectsWith(() => openModelFolder(model), join(model, indexName), part);
    });
  }

  it('a shard that is not there', async () => {
    const model = await modelOf({ [indexName]: indexOf({ a: 'gone.safetensors' }) });
    await rejectsWith(() => openModelFolder(model), join(model, 'gone.safetensors'), 'does not exist', indexName);
  });
});
