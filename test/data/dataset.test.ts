// From stored tokens to batches: every token is a target once, documents keep apart, orders are permutations.
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { makeDataset, pack, paddedLength, StoredDataset, windowsOf } from '../../lib/data/dataset.ts';
import { shuffled, shuffledInTurns } from '../../lib/data/shuffle.ts';
import type { TokenStore } from '../../lib/data/token_store.ts';
import { IGNORE_INDEX } from '../../lib/ops/loss_options.ts';

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
    notes: [],
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
          const { inputs, targets, documentStart, numTargets, B, ...batch } = await dataset.batch(all(dataset));
          assert.equal(inputs.length, B * batch.T);
          assert.equal(batch.T, paddedLength(batch.length, T));
          assert.equal(dataset.T, batch.T);
          const seen: number[] = [];
          targets.forEach((target, n) => {
            if (target === IGNORE_INDEX) return;
            assert.equal(inputs[n], target - 1);
            seen.push(target);
            const start = documentStart ? documentStart[n]! : n - (n % batch.T);
            assert.ok(start <= n && start >= n - (n % batch.T));
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
      targets: Int32Array.of(4, 5, 6, 1, 2, IGNORE_INDEX, IGNORE_INDEX, IGNORE_INDEX),
      documentStart: Int32Array.of(0, 0, 0, 3, 3, 5, 5, 5),
      B: 1,
      T: 8,
      length: 5,
      numTargets: 5,
    });
  });

  it('are as long as the longest sequence of the batch, not padded to T', async () => {
    for (const isPacked of [false, true]) {
      const dataset = await makeDataset(storeOf([40, 101, 3001]), { T: 4096, seed: 0, isPacked });
      if (isPacked) {
        assert.deepEqual([dataset.length, dataset.T, (await dataset.batch([0])).T], [1, 3200, 3200]);
        continue;
      }
      const lengths = [];
      for (const batch of [[0], [1], [2], [0, 1]]) {
        const { T, length } = await dataset.batch(batch);
        lengths.push([T, length]);
      }
      assert.deepEqual(lengths, [
        [64, 39],
        [128, 100],
        [3072, 3000],
        [128, 100],
      ]);
      assert.equal(dataset.T, 3072);
    }
  });

  it('have few lengths, all of them long enough, and little padding', () => {
    for (const T of [50, 1000, 4096, 65536]) {
      const lengths = new Set<number>();
      for (let length = 1; length <= T; length += T > 5000 ? 7 : 1) {
        const padded = paddedLength(length, T);
        assert.ok(padded >= length && padded <= T, `${padded} for ${length} of ${T}`);
        assert.ok(padded - length < Math.max(64, length <= 512 ? 64 : 128, length / 15.9), `${padded} for ${length}`);
        if (padded > 512 && padded < T) assert.equal(padded % 128, 0, 'what cuDNN wants');
        lengths.add(padded);
      }
      assert.ok(lengths.size <= 110, `${lengths.size} lengths up to ${T}`);
    }
  });

  it('count documentStart over all rows of a batch', async () => {
    const dataset = await makeDataset(storeOf([3, 3]), { T: 2, seed: 0, isPacked: true });
    const { documentStart } = await dataset.batch([0, 1, 0]);
    assert.deepEqual([...documentStart!], [0, 0, 2, 2, 4, 4]);
  });

  it('mark targets that are not trained on as ignored, and leave out windows without a target', async () => {
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

  it('throw for a sequence number that does not exist, and name it', async () => {
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

  it('are the same when computed in pieces, with other events in between', async () => {
    for (const length of [0, 1, 2, 1000, 65536, 65537, 200_000]) {
      assert.deepEqual(await shuffledInTurns(length, 7, 3), shuffled(length, 7, 3));
    }
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
});
