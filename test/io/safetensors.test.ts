// Safetensors files: round trips, every way to be corrupt, writers that fail.
import assert from 'node:assert/strict';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { SafetensorsError, SafetensorsFile, type TensorToWrite, writeSafetensors } from '../../lib/io/safetensors.ts';
import { entry, fileOf, rejectsWith } from '../support/safetensors.ts';

const parity = new URL('../fixtures/parity/', import.meta.url).pathname;

let folder: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'safetensors-'));
});
after(() => rm(folder, { recursive: true }));

async function written(name: string, bytes: Uint8Array): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, bytes);
  return path;
}

/** Opens the file and reads every tensor. */
async function readAll(path: string): Promise<TensorToWrite[]> {
  const file = await SafetensorsFile.open(path);
  try {
    const tensors: TensorToWrite[] = [];
    for (const [name, { dtype, shape, bytes }] of file.entries) {
      const data = await file.read(name);
      assert.equal(data.length, bytes);
      tensors.push({ name, dtype, shape, data: () => data });
    }
    return tensors;
  } finally {
    await file.close();
  }
}

describe('safetensors', () => {
  for (const model of ['llama', 'llama3-rope-scaled']) {
    it(`reads and writes ${model}/model.safetensors byte by byte`, async () => {
      const source = join(parity, model, 'model.safetensors');
      const copy = join(folder, `${model}.safetensors`);
      await writeSafetensors(copy, await readAll(source));
      assert.ok((await readFile(copy)).equals(await readFile(source)));
    });

    it(`reads ${model}/gradients.safetensors, which has no metadata: the model's names and shapes`, async () => {
      const shapes = async (name: string) =>
        (await readAll(join(parity, model, name))).map(({ name, dtype, shape }) => ({ name, dtype, shape }));
      assert.deepEqual(await shapes('gradients.safetensors'), await shapes('model.safetensors'));
    });
  }

  it('writes and reads every dtype, scalars, empty tensors and any name', async () => {
    const path = join(folder, 'kinds.safetensors');
    const sizes = { F64: 8, F32: 4, F16: 2, BF16: 2, I64: 8, I32: 4, U8: 1 } as const;
    const kinds = Object.entries(sizes) as [keyof typeof sizes, number][];
    const tensors: TensorToWrite[] = kinds.map(([dtype, size], i) => ({
      name: dtype,
      dtype,
      shape: [3, 2],
      data: () => new Uint8Array(6 * size).fill(i + 1),
    }));
    for (const [name, shape] of [
      ['scalar', []],
      ['empty', [0, 5]],
      ['__proto__', [2]],
      ['constructor', [1]],
      ['toString', [1]],
      ['naïve 東京 "\n', [1]],
    ] as [string, number[]][]) {
      const length = shape.reduce((a, b) => a * b, 1);
      tensors.push({ name, dtype: 'U8', shape, data: async () => new Uint8Array(length).fill(9) });
    }
    await writeSafetensors(path, tensors);
    const read = await readAll(path);
    assert.deepEqual(
      read.map(({ name, dtype, shape }) => ({ name, dtype, shape })),
      tensors.map(({ name, dtype, shape }) => ({ name, dtype, shape })),
    );
    for (const [i, tensor] of tensors.entries()) assert.deepEqual(await read[i]!.data(), await tensor.data());
  });

  it("is not written with a name twice, or with the metadata's", async () => {
    const path = join(folder, 'twice.safetensors');
    const named = (name: string) => ({ name, dtype: 'U8', shape: [1], data: () => new Uint8Array(1) }) as const;
    for (const name of ['w', 'toString', '__proto__']) {
      await rejectsWith(
        () => writeSafetensors(path, [named(name), named(name)]),
        path,
        `two tensors are named '${name}'`,
      );
    }
    await rejectsWith(() => writeSafetensors(path, [named('__metadata__')]), path, "'__metadata__'");
  });

  it('names a tensor that is asked for and does not exist', async () => {
    const file = await SafetensorsFile.open(join(parity, 'llama/model.safetensors'));
    await rejectsWith(() => file.read('toString'), 'llama/model.safetensors', "'toString'");
    await file.close();
  });
});

describe('a closed safetensors file', () => {
  it('lets reads on their way end, refuses further ones, and is closed once', async () => {
    const file = await SafetensorsFile.open(join(parity, 'llama/model.safetensors'));
    const [name] = file.entries.keys();
    const before = await file.read(name!);
    const reads = [file.read(name!), file.read(name!)];
    const closed = file.close();
    await file.close();
    const other = await SafetensorsFile.open(join(parity, 'gemma2/model.safetensors')); // would get a descriptor that is free
    for (const read of reads) assert.deepEqual(await read, before);
    await closed;
    await rejectsWith(() => file.read(name!), 'llama/model.safetensors', 'was closed');
    assert.throws(() => file.readRangeSync(name!, 0, 1), /was closed/);
    await other.close();
  });
});

describe('corrupt safetensors files', () => {
  const f32 = (begin: unknown, end: unknown, shape: unknown = [2]) => entry('F32', shape, begin, end);
  const cases: [string, Uint8Array, string[]][] = [
    ['empty file', new Uint8Array(0), ['0 bytes']],
    ['7 bytes', new Uint8Array(7), ['7 bytes']],
    ['header past the end', fileOf('{}', 0, 3n), ['header takes 3 bytes', 'the file has 10']],
    ['header of 2^63 bytes', fileOf('{}', 0, 2n ** 63n), [String(2n ** 63n), '104857600']],
    ['header over 100 MB', fileOf('{}', 0, 104857601n), ['104857601', '104857600']],
    ['empty header', fileOf(''), ['not JSON']],
    ['not JSON', fileOf('{"a":'), ['not JSON']],
    ['an array', fileOf([]), ['not a JSON object']],
    ['null', fileOf(null), ['not a JSON object']],
    ['not UTF-8', fileOf(Uint8Array.of(0x7b, 0xff, 0x7d)), ['not UTF-8']],
    ['unknown dtype', fileOf({ w: entry('F31', [2], 0, 8) }, 8), ["'w'", '"F31"', 'F64, F32']],
    ['dtype of a prototype', fileOf({ w: entry('toString', [2], 0, 8) }, 8), ["'w'", '"toString"']],
    ['no dtype', fileOf({ w: { shape: [2], data_offsets: [0, 8] } }, 8), ["'w'", 'dtype undefined']],
    [
      'two tensors of a name',
      fileOf('{"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\\u0077":{}}', 1),
      ["two tensors 'w'"],
    ],
    [
      'a field twice',
      fileOf('{"w":{"dtype":"U8","shape":[1],"shape":[2],"data_offsets":[0,1]}}', 1),
      ["two fields 'shape'"],
    ],
    ['metadata that are no strings', fileOf({ __metadata__: { format: 1 } }), ['__metadata__']],
    ['null for an entry', fileOf({ w: null }), ["'w'"]],
    ['negative size', fileOf({ w: f32(0, 8, [-2]) }, 8), ["'w'", '[-2]']],
    ['size of 2^53', fileOf({ w: f32(0, 8, [2 ** 53]) }, 8), ["'w'", '[9007199254740992]']],
    ['fraction', fileOf({ w: f32(0, 8, [1.5]) }, 8), ["'w'", '[1.5]']],
    ['text for a size', fileOf({ w: f32(0, 8, ['2']) }, 8), ["'w'", '["2"]']],
    ['shape that is no list', fileOf({ w: f32(0, 8, 2) }, 8), ["'w'", 'shape 2']],
    [
      'product past 2^53',
      fileOf({ w: f32(0, 8, [2 ** 40, 2 ** 40]) }, 8),
      ["'w'", '(1099511627776,1099511627776)', '8'],
    ],
    ['negative offset', fileOf({ w: f32(-8, 0) }, 8), ["'w'", '[-8,0]']],
    ['offset of 2^53', fileOf({ w: f32(0, 2 ** 53) }, 8), ["'w'", '[0,9007199254740992]']],
    ['one offset', fileOf({ w: { ...f32(0, 8), data_offsets: [8] } }, 8), ["'w'", '[8]']],
    ['offsets that go back', fileOf({ w: f32(8, 0) }, 8), ["'w'", 'takes 8 bytes', 'span -8']],
    ['wrong byte count', fileOf({ w: f32(0, 12) }, 12), ["'w'", 'takes 8 bytes', 'span 12']],
  ];
  for (const [name, bytes, parts] of cases) {
    it(name, async () => {
      const path = await written('corrupt.safetensors', bytes);
      await rejectsWith(() => SafetensorsFile.open(path), path, ...parts);
    });
  }

  // Places in the file: the data of a header of n bytes begins at n + 8.
  const placed: [string, Record<string, unknown>, number, (begin: number) => string[]][] = [
    [
      'overlapping tensors',
      { a: f32(0, 8), b: f32(4, 12) },
      12,
      (at) => [`'b' begins at byte ${at + 4}`, `ends at ${at + 8}`],
    ],
    ['the same bytes twice', { a: f32(0, 8), b: f32(0, 8) }, 8, (at) => [`begins at byte ${at}`, `ends at ${at + 8}`]],
    ['gap', { a: f32(0, 8), b: f32(12, 20) }, 20, (at) => [`'b' begins at byte ${at + 12}`, `ends at ${at + 8}`]],
    ['gap at the beginning', { a: f32(4, 12) }, 12, (at) => [`'a' begins at byte ${at + 4}`, `ends at ${at}`]],
    ['data past the end', { a: f32(0, 8) }, 5, (at) => [`end at byte ${at + 8}`, `the file at ${at + 5}`]],
    ['bytes of no tensor', { a: f32(0, 8) }, 9, (at) => [`end at byte ${at + 8}`, `the file at ${at + 9}`]],
  ];
  for (const [name, header, dataBytes, parts] of placed) {
    it(name, async () => {
      const bytes = fileOf(header, dataBytes);
      const path = await written('corrupt.safetensors', bytes);
      await rejectsWith(() => SafetensorsFile.open(path), path, ...parts(bytes.length - dataBytes));
    });
  }

  const [deep, long] = [`${'['.repeat(1e5)}${']'.repeat(1e5)}`, 'F'.repeat(5e7)];
  for (const [name, header, part] of [
    [
      'a shape nested 100,000 deep',
      `{"w":{"dtype":"F32","shape":${deep},"data_offsets":[0,8]}}`,
      'shape [[[…]]] is not',
    ],
    ['a dtype of 50 MB', `{"w":{"dtype":"${long}","shape":[2],"data_offsets":[0,8]}}`, 'dtype "FFFF'],
    ['a name of 50 MB', `{"${long}":{"dtype":"F31","shape":[2],"data_offsets":[0,8]}}`, "tensor 'FFFF"],
    [
      'a shape of a million sizes',
      `{"w":{"dtype":"F32","shape":[${'1,'.repeat(1e6)}1],"data_offsets":[0,8]}}`,
      'F32 (1,1,1',
    ],
    ['data_offsets nested deep', `{"w":{"dtype":"F32","shape":[2],"data_offsets":${deep}}}`, 'are not two offsets'],
  ] as const) {
    it(`${name}: a message of some hundred characters`, async () => {
      const path = await written('corrupt.safetensors', fileOf(header, 8));
      await assert.rejects(SafetensorsFile.open(path), (error: Error) => {
        assert.ok(error instanceof SafetensorsError, String(error).slice(0, 300));
        assert.ok(error.message.startsWith(path) && error.message.includes(part), error.message.slice(0, 500));
        assert.ok(error.message.length < 400, `${error.message.length} characters`);
        return true;
      });
    });
  }

  it('metadata of 30 MB with quotes, brackets and backslashes are no corruption', async () => {
    const note = '\\"}{][:,'.repeat(3e6);
    const path = await written('long.safetensors', fileOf({ __metadata__: { note }, a: f32(0, 8) }, 8));
    const [tensor] = await readAll(path);
    assert.equal(tensor!.name, 'a');
  });

  it('metadata with a key twice are read, as safetensors reads them', async () => {
    const text = '{"__metadata__":{"a":"1","a":"2"},"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}';
    assert.equal((await readAll(await written('twice.safetensors', fileOf(text, 1)))).length, 1);
  });

  it('a file cut short after it was opened', async () => {
    const path = await written('cut.safetensors', fileOf({ a: f32(0, 8) }, 8));
    const file = await SafetensorsFile.open(path);
    await writeFile(path, fileOf({ a: f32(0, 8) }, 3));
    await rejectsWith(() => file.read('a'), path, 'ends 5 bytes early');
    await file.close();
  });

  it('edited or truncated anywhere: one of our errors, or reads of the right sizes', async function () {
    this.timeout(120_000);
    const whole = fileOf(
      { __metadata__: { format: 'pt' }, a: f32(0, 8), b: entry('BF16', [3, 1], 8, 14), c: entry('U8', [], 14, 15) },
      15,
    );
    const path = join(folder, 'fuzz.safetensors');
    const edit = fc.tuple(fc.nat(whole.length - 1), fc.integer({ min: 0, max: 255 }));
    await fc.assert(
      fc.asyncProperty(
        fc.array(edit, { maxLength: 4 }),
        fc.option(fc.nat(whole.length), { freq: 3 }),
        async (edits, length) => {
          const bytes = whole.slice();
          for (const [at, value] of edits) bytes[at] = value;
          await writeFile(path, bytes.subarray(0, length ?? whole.length));
          try {
            await readAll(path);
          } catch (error) {
            if (!(error instanceof SafetensorsError)) throw error;
            assert.ok(error.message.startsWith(path), error.message);
          }
        },
      ),
      { numRuns: 1500 },
    );
  });
});

describe('writers that fail', () => {
  const good: TensorToWrite = { name: 'a', dtype: 'U8', shape: [2], data: () => new Uint8Array(2) };
  const failures: [string, TensorToWrite[], RegExp][] = [
    [
      'data that throw',
      [
        good,
        {
          ...good,
          name: 'b',
          data: () => {
            throw new Error('on purpose');
          },
        },
      ],
      /on purpose/,
    ],
    [
      'data that reject',
      [good, { ...good, name: 'b', data: () => Promise.reject(new Error('on purpose')) }],
      /on purpose/,
    ],
    ['data of another size', [{ ...good, data: () => new Uint8Array(3) }], /tensor 'a' takes 2 bytes, got 3/],
    ['two of a name', [good, good], /two tensors are named 'a'/],
  ];
  for (const [name, tensors, message] of failures) {
    it(`${name}: no file is left, and an old one stays`, async () => {
      const place = await mkdtemp(join(folder, 'writer-'));
      const path = join(place, 'model.safetensors');
      await assert.rejects(() => writeSafetensors(path, tensors), message);
      assert.deepEqual(await readdir(place), []);
      await writeSafetensors(path, [good]);
      const before = await readFile(path);
      await assert.rejects(() => writeSafetensors(path, tensors), message);
      assert.deepEqual(await readdir(place), ['model.safetensors']);
      assert.ok((await readFile(path)).equals(before));
    });
  }
});
