// Collectives between devices: ranks of one process, connected as several processes are.
import assert from 'node:assert/strict';
import { type Dtype, openDevice, ProcessGroup, type RankStore, tensor } from '../../lib/index.ts';
import { SHARD_BLOCK, Shards } from '../../lib/ranks/shards.ts';
import { kernels } from '../../lib/runtime/native.ts';
import { openTestDevice } from '../support/devices.ts';
import { normals } from '../support/random.ts';
import { itOnCpuRanks } from '../support/ranks.ts';
import { inGroups } from '../support/sequence_ranks.ts';

describe('all_reduce', () => {
  for (const size of [2, 3, 4]) {
    itOnCpuRanks(`is the sum of ${size} ranks, the same bits on each`, async () => {
      for (const [dtype, unit] of [
        ['float32', 2 ** -24],
        ['float64', 2 ** -53],
        ['bfloat16', 2 ** -8],
      ] as [Dtype, number][]) {
        for (const count of [1, 5, 4097]) {
          const parts = Array.from({ length: size }, (_, rank) => normals(count, 10 * count + rank));
          const sums = await inGroups(size, async (group, device) => {
            using x = tensor(parts[group.rank]!, { dtype, device });
            const values = async () => (dtype === 'float64' ? ((await x.data()) as Float64Array) : await x.toFloat32());
            const given = await values();
            group.allReduce(x);
            return { given: Array.from(given, Number), data: await x.data(), values: await values() };
          });
          for (const { data } of sums) assert.deepEqual(data, sums[0]!.data);
          for (let i = 0; i < count; i++) {
            const exact = sums.reduce((sum, { given }) => sum + given[i]!, 0);
            const bound = sums.reduce((sum, { given }) => sum + Math.abs(given[i]!), 0) * unit * size;
            const error = Math.abs(sums[0]!.values[i]! - exact);
            assert.ok(error <= bound, `${dtype}, element ${i} of ${count}: ${sums[0]!.values[i]}, exact ${exact}`);
          }
        }
      }
    });
  }

  it('fails on a device that is in no group', async () => {
    using device = openTestDevice();
    using x = tensor([1, 2], { device });
    kernels.all_reduce(x);
    await assert.rejects(x.toFloat32(), /the device is in no group of ranks \(in all_reduce of float32\(2\)/);
  });

  itOnCpuRanks('fails when a rank is lost, and does not wait for it', async () => {
    await assert.rejects(
      inGroups(3, async (group, device) => {
        using x = tensor([1, 2], { device });
        if (group.rank === 2) throw new Error('rank 2 goes');
        group.allReduce(x);
        await x.toFloat32();
      }),
      (error: Error) => /Gloo: all_reduce: |rank 2/.test(error.message),
    );
  });
});

describe('reduce_scatter and all_gather', () => {
  for (const size of [2, 3, 4]) {
    itOnCpuRanks(`give each of ${size} ranks its part of the sum, and all parts to each`, async () => {
      for (const [dtype, unit] of [
        ['float32', 2 ** -24],
        ['float64', 2 ** -53],
        ['bfloat16', 2 ** -8],
      ] as [Dtype, number][]) {
        // fewer elements than a block, one block a rank, parts of different lengths, an empty part, more than one piece of a part
        for (const count of [1, 200, 256 * size, 256 * size + 1, 256 * (size - 1), ...(size === 2 ? [140_001] : [])]) {
          const parts = Array.from({ length: size }, (_, rank) => normals(count, 10 * count + rank));
          const sums = await inGroups(size, async (group, device) => {
            using x = tensor(parts[group.rank]!, { dtype, device });
            const values = async () => (dtype === 'float64' ? ((await x.data()) as Float64Array) : await x.toFloat32());
            const given = Array.from(await values(), Number);
            group.reduceScatter(x);
            const { begin, end } = group.shards.range(count);
            const part = (await values()).slice(begin, end);
            group.allGather(x);
            return { given, begin, part, whole: await values() };
          });
          const joined = sums.flatMap(({ part }) => [...part]);
          for (const { whole } of sums) assert.deepEqual([...whole], joined, `${dtype}, ${count}`);
          assert.equal(joined.length, count);
          for (const [i, sum] of joined.entries()) {
            const exact = sums.reduce((sum, { given }) => sum + given[i]!, 0);
            const bound =
              sums.reduce((sum, { given }) => sum + Math.abs(given[i]!), 0) * unit * (dtype === 'bfloat16' ? 1 : size);
            assert.ok(Math.abs(sum - exact) <= bound, `${dtype}, element ${i} of ${count}: ${sum}, exact ${exact}`);
          }
        }
      }
    });
  }

  itOnCpuRanks('refuse parts that are not those of the tensor', async () => {
    for (const part of [0, 2, 11]) {
      await assert.rejects(
        inGroups(2, async (_group, device) => {
          using x = tensor(new Float32Array(10), { device });
          kernels.all_gather(x, part);
          await x.toFloat32();
        }),
        new RegExp(`all_gather: 2 parts of ${part} elements are not those of`),
      );
    }
  });
});

describe('Shards', () => {
  it("cuts at multiples of 256, and every element is one rank's", () => {
    for (const size of [1, 2, 3, 8]) {
      for (const n of [1, 255, 256, 257, 4096, 5000, 256 * size, 256 * size - 1]) {
        let next = 0;
        for (let rank = 0; rank < size; rank++) {
          const shards = new Shards(rank, size);
          const { begin, end } = shards.range(n);
          assert.equal(begin, next);
          assert.ok(begin % SHARD_BLOCK === 0 || begin === n);
          assert.ok(end - begin <= shards.length(n));
          next = end;
        }
        assert.equal(next, n);
      }
    }
    assert.throws(() => new Shards(2, 2), /got rank 2, size 2/);
  });
});

describe('ProcessGroup', () => {
  it('needs a device with something behind it', async () => {
    using meta = openDevice('meta');
    const store = { place: { rank: 0, size: 2 } } as RankStore;
    await assert.rejects(ProcessGroup.join(store, meta), /ProcessGroup: meta cannot be in a group/);
  });
});
