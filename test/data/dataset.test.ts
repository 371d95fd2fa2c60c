// From stored tokens to batches: every token is a target once, documents keep apart, orders are permutations.
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { IGNORED, makeDataset, pack, StoredDataset, splitDocuments, windowsOf } from '../../lib/data/dataset.ts';
import { shuffled } from '../../lib/data/shuffle.ts';
import type { TokenStore } from '../../lib/data/token_store.ts';

/** A store in memory whose token at position p has id p; `masked` says which are not trained on. */
function storeOf(lengths: number[], masked: (position: number) => boolean = () => false): TokenStore {
  const offsets = [0];
  for (const length of lengths) offsets.push(offsets.at(-1)! + length);
  const read = async (begin: number, end: number) =>
    Int32Array.from({ length: end - begin }, (_, i) => (masked(begin + i) ? -1 - (begin + i) : begin + i));
  return {
    offsets: Float64Array.from(offsets),
    read,
    numDocuments: lengths.length,
    numTokens: offsets.at(-1),
  } as unknown as TokenStore;
}

const all = ({ length }: { length: number }) => Array.from({ length }, (_, i) => i);
const documentLengths = fc.array(fc.integer({ min: 1, max: 60 }), { minLength: 1, maxLength: 40 });

describe('datasets', () => {
  for (const isPacked of [false, true]) {
    it(`have every token but a document's first as a target exactly once${isPacked ? ', packed' : ''}`, () =>
      fc.assert(
        fc.asyncProperty(documentLengths, fc.integer({ min: 1, max: 70 }), fc.nat(), async (lengths, T, seed) => {
          fc.pre(lengths.some((length) => length > 1));
          const store = storeOf(lengths);
          const dataset = await makeDataset(store, { T, seed, isPacked });
          const { inputs, targets, documentStart, numTargets, B } = await dataset.batch(all(dataset));
          assert.equal(inputs.length, B * T);
          const seen: number[] = [];
          targets.forEach((target, n) => {
            if (target === IGNORED) return;
            assert.equal(inputs[n], target - 1);
            seen.push(target);
            const start = documentStart ? documentStart[n]! : n - (n % T);
            assert.ok(start <= n && start >= n - (n % T));
            for (let row = start; row <= n; row++) assert.equal(inputs[row], inputs[n]! - (n - row), 'one document');
          });
          const firsts = new Set([...store.offsets]);
          assert.deepEqual(
            seen.sort((a, b) => a - b),
            all({ length: store.numTokens }).filter((token) => !firsts.has(token)),
          );
          assert.equal(numTargets, seen.length);
        }),
      ));
  }

  it('fill sequences well when packed, and the same for the same seed', () => {
    const lengths = all({ length: 500 }).map((i) => 5 + ((i * 37) % 60));
    const windows = windowsOf(storeOf(lengths), all(lengths), 64);
    const sequences = pack(windows, 64, 3);
    const tokens = windows.reduce((sum, { length }) => sum + length, 0);
    assert.ok(sequences.length <= Math.ceil(tokens / 64) * 1.05, `${sequences.length} sequences for ${tokens} tokens`);
    assert.deepEqual(pack(windows, 64, 3), sequences);
    assert.notDeepEqual(pack(windows, 64, 4), sequences);
  });

  it('make padding a document of its own, without targets', async () => {
    const dataset = await makeDataset(storeOf([3, 4]), { T: 8, seed: 0, isPacked: true });
    assert.deepEqual(await dataset.batch([0]), {
      inputs: Int32Array.of(3, 4, 5, 0, 1, 0, 0, 0),
      targets: Int32Array.of(4, 5, 6, 1, 2, IGNORED, IGNORED, IGNORED),
      documentStart: Int32Array.of(0, 0, 0, 3, 3, 5, 5, 5),
      B: 1,
      T: 8,
      numTargets: 5,
    });
  });

  it('count documentStart over all rows of a batch', async () => {
    const dataset = await makeDataset(storeOf([3, 3]), { T: 2, seed: 0, isPacked: true });
    const { documentStart } = await dataset.batch([0, 1, 0]);
    assert.deepEqual([...documentStart!], [0, 0, 2, 2, 4, 4]);
  });

  it('ignore what is not trained on, and leave out windows without a target', async () => {
    const dataset = await makeDataset(
      storeOf([9], (position) => position < 5),
      { T: 4, seed: 0, isPacked: false },
    );
    assert.equal(dataset.length, 1);
    const { inputs, targets, numTargets } = await dataset.batch([0]);
    assert.deepEqual([[...inputs], [...targets], numTargets], [[4, 5, 6, 7], [5, 6, 7, 8], 4]);
    await assert.rejects(
      makeDataset(
        storeOf([9], () => true),
        { T: 4, seed: 0, isPacked: false },
      ),
      /something to train on/,
    );
  });

  it('name a sequence that is not there', async () => {
    const dataset = await makeDataset(storeOf([9]), { T: 4, seed: 0, isPacked: false });
    for (const index of [-1, 2, 0.5])
      await assert.rejects(dataset.batch([index]), new RegExp(`sequence ${index} is not in`));
    assert.ok(dataset instanceof StoredDataset);
  });
});

describe('orders', () => {
  it('are permutations, the same for the same seed and epoch', () => {
    fc.assert(
      fc.property(fc.nat(300), fc.nat(), fc.nat(100), (length, seed, epoch) => {
        const order = shuffled(length, seed, epoch);
        assert.deepEqual(
          [...order].sort((a, b) => a - b),
          all(order),
        );
        assert.deepEqual(shuffled(length, seed, epoch), order);
      }),
    );
  });

  it('differ between seeds and epochs', () => {
    const orders = new Set<string>();
    for (let seed = 0; seed < 20; seed++)
      for (let epoch = 0; epoch < 20; epoch++) orders.add(shuffled(101, seed, epoch).join());
    assert.equal(orders.size, 400);
  });

  it('begin with each number about as often', () => {
    const counts = new Array<number>(10).fill(0);
    for (let epoch = 0; epoch < 2000; epoch++) counts[shuffled(10, 1, epoch)[0]!]! += 1;
    const deviation = Math.sqrt(2000 * 0.1 * 0.9);
    for (const count of counts) assert.ok(Math.abs(count - 200) < 5 * deviation, `${counts}`);
  });

  it('split into parts that share nothing', () => {
    const { training, validation } = splitDocuments(100, 0.15, 3);
    assert.equal(validation.length, 15);
    assert.deepEqual(
      [...training, ...validation].sort((a, b) => a - b),
      all({ length: 100 }),
    );
    assert.deepEqual(splitDocuments(100, 0.15, 3).validation, validation);
    assert.notDeepEqual(splitDocuments(100, 0.15, 4).validation, validation);
    assert.deepEqual([splitDocuments(2, 0.9, 0).training.length, splitDocuments(2, 0.01, 0).validation.length], [1, 1]);
  });
});
