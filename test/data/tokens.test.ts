// Token windows: every token is a target once, padding has no part, orders are permutations; and files of text.
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { IGNORED, readTokens, Sequences } from '../../lib/data/tokens.ts';
import { loadTokenizer, type Tokenizer } from '../../lib/io/tokenizer.ts';

/** 0, 1, 2 …: each id is its own place in the stream. */
const counting = (length: number) => Int32Array.from({ length }, (_, i) => i);
const all = (sequences: Sequences) => Array.from({ length: sequences.length }, (_, i) => i);

describe('Sequences', () => {
  it('every token but the first is a target exactly once, after the token before it', () => {
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 200 }), fc.integer({ min: 1, max: 250 }), (length, T) => {
        const sequences = new Sequences(counting(length), T, length);
        const { inputs, targets, numTargets, B } = sequences.batch(all(sequences));
        assert.equal(B, Math.ceil((length - 1) / T));
        assert.equal(inputs.length, B * T);
        assert.equal(numTargets, length - 1);
        const seen: number[] = [];
        targets.forEach((target, n) => {
          if (target === IGNORED) return;
          assert.equal(inputs[n], target - 1);
          seen.push(target);
        });
        assert.deepEqual(seen, [...counting(length)].slice(1));
      }),
    );
  });

  it('windows overlap by one token, and the padding of the last is ignored', () => {
    const sequences = new Sequences(counting(6), 4, 6);
    assert.deepEqual(sequences.batch([0, 1]), {
      inputs: Int32Array.of(0, 1, 2, 3, 4, 0, 0, 0),
      targets: Int32Array.of(1, 2, 3, 4, 5, IGNORED, IGNORED, IGNORED),
      B: 2,
      T: 4,
      numTargets: 5,
    });
  });

  it('a batch has its windows in the order asked for, repeated ones too', () => {
    const sequences = new Sequences(counting(7), 2, 7);
    const { inputs, numTargets } = sequences.batch([2, 0, 2]);
    assert.deepEqual([...inputs], [4, 5, 0, 1, 4, 5]);
    assert.equal(numTargets, 6);
  });

  it('windows that are not there', () => {
    const sequences = new Sequences(counting(7), 2, 7);
    for (const window of [-1, 3, 0.5, Number.NaN]) {
      assert.throws(() => sequences.batch([window]), new RegExp(`window ${window} is not in \\[0, 3\\)`));
    }
  });

  it('ids outside the vocabulary are named with their place', () => {
    assert.throws(() => new Sequences(Int32Array.of(1, 2, 5), 2, 5), /token 2 has id 5, outside \[0, 5\)/);
    assert.throws(() => new Sequences(Int32Array.of(1, -100, 2), 2, 5), /token 1 has id -100, outside \[0, 5\)/);
  });

  it('lengths that make no window', () => {
    for (const T of [0, -1, 1.5, Number.NaN]) {
      assert.throws(() => new Sequences(counting(4), T, 4), new RegExp(`T must be a positive integer, got ${T}`));
    }
    for (const length of [0, 1]) {
      assert.throws(() => new Sequences(counting(length), 4, 4), new RegExp(`at least 2 tokens, got ${length}`));
    }
  });

  it('an order is a permutation, the same for the same seed and epoch', () => {
    fc.assert(
      fc.property(fc.integer({ min: 2, max: 300 }), fc.nat(), fc.nat(100), (length, seed, epoch) => {
        const sequences = new Sequences(counting(length), 1, length);
        const order = sequences.order(seed, epoch);
        assert.deepEqual(
          [...order].sort((a, b) => a - b),
          all(sequences),
        );
        assert.deepEqual(new Sequences(counting(length), 1, length).order(seed, epoch), order);
      }),
    );
  });

  it('seeds and epochs have orders of their own', () => {
    const sequences = new Sequences(counting(101), 1, 101);
    const orders = new Set<string>();
    for (let seed = 0; seed < 20; seed++)
      for (let epoch = 0; epoch < 20; epoch++) orders.add(sequences.order(seed, epoch).join());
    assert.equal(orders.size, 400);
  });

  it('each window comes first about as often as another', () => {
    const sequences = new Sequences(counting(11), 1, 11);
    const counts = new Array<number>(10).fill(0);
    for (let epoch = 0; epoch < 2000; epoch++) counts[sequences.order(1, epoch)[0]!]! += 1;
    const deviation = Math.sqrt(2000 * 0.1 * 0.9);
    for (const count of counts) assert.ok(Math.abs(count - 200) < 5 * deviation, `${counts}`);
  });
});

describe('readTokens', () => {
  let folder: string;
  let bytes: Tokenizer;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tokens-'));
    bytes = await loadTokenizer('bytes');
  });
  after(() => rm(folder, { recursive: true }));

  async function fileOf(name: string, content: string | Uint8Array): Promise<string> {
    const path = join(folder, name);
    await writeFile(path, content);
    return path;
  }

  it('joins files, each ended where the tokenizer has an id for it', async () => {
    const files = [await fileOf('a.txt', 'ab'), await fileOf('b.txt', 'é')];
    assert.deepEqual([...(await readTokens(files, bytes))], [97, 98, 0xc3, 0xa9]);
    const ending = { ...bytes, endOfText: 7 };
    assert.deepEqual([...(await readTokens(files, ending))], [97, 98, 7, 0xc3, 0xa9, 7]);
  });

  it('leaves a byte order mark out', async () => {
    assert.deepEqual([...(await readTokens([await fileOf('mark.txt', '\ufeffab')], bytes))], [97, 98]);
  });

  const failures: [string, string | Uint8Array | null, RegExp][] = [
    ['an empty file', '', /: is empty$/],
    ['a byte order mark alone', '\ufeff', /: is empty$/],
    ['a file that is not there', null, /: cannot be read: ENOENT/],
    ['Latin-1', Uint8Array.of(0x63, 0x61, 0x66, 0xe9), /: is not UTF-8 text$/],
    ['UTF-16', Uint8Array.of(0xff, 0xfe, 0x61, 0x00), /: is not UTF-8 text$/],
    ['a character cut off', Uint8Array.of(0x61, 0xe6, 0x9d), /: is not UTF-8 text$/],
  ];
  for (const [name, content, message] of failures) {
    it(`${name}: an error with its path`, async () => {
      const good = await fileOf('good.txt', 'text');
      const path = content === null ? join(folder, 'gone.txt') : await fileOf('bad.txt', content);
      await assert.rejects(readTokens([good, path], bytes), (error: Error) => {
        assert.ok(error.message.startsWith(`${path}:`), error.message);
        assert.match(error.message, message);
        return true;
      });
    });
  }

  it('a folder: an error with its path', async () => {
    await assert.rejects(readTokens([folder], bytes), (error: Error) =>
      error.message.startsWith(`${folder}: cannot be read`),
    );
  });
});
