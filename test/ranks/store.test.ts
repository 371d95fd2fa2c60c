// The store where ranks meet: what they share, and how each learns that another is lost.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect } from 'node:net';
import { networkInterfaces } from 'node:os';
import { RankError, type RankPlace, RankStore } from '../../lib/index.ts';
import { onRanks, places } from '../support/ranks.ts';

const version = '1.2.3';
const at = (place: RankPlace, options: object = {}) => RankStore.connect(place, { version, ...options });

/** The reason for which a rank's store fails. */
async function failureOf({ failure }: RankStore): Promise<RankError> {
  if (!failure.aborted) await once(failure, 'abort');
  return failure.reason;
}

describe('RankStore', () => {
  it('gathers values by rank, under any number of keys, and ends when all have left', async () => {
    const results = await onRanks(3, async (place) => {
      const store = await at(place);
      const [first, second] = await Promise.all([
        store.gather('square', place.rank ** 2),
        store.gather('text', { name: `rank\n${place.rank}` }),
      ]);
      await store.leave();
      return { first, second: second.map(({ name }) => name), isLost: store.failure.aborted };
    });
    for (const { first, second, isLost } of results) {
      assert.deepEqual(first, [0, 1, 4]);
      assert.deepEqual(second, ['rank\n0', 'rank\n1', 'rank\n2']);
      assert.equal(isLost, false);
    }
  });

  it('waits for rank 0, whichever comes first', async () => {
    const [zero, one] = await places(2);
    const early = at(one!);
    await new Promise((resolve) => setTimeout(resolve, 50));
    const stores = await Promise.all([at(zero!), early]);
    assert.deepEqual(await Promise.all(stores.map((store) => store.gather('a', store.place.rank))), [
      [0, 1],
      [0, 1],
    ]);
    await Promise.all(stores.map((store) => store.leave()));
  });

  it('tells every rank which one is lost, at which step and why; what they gather rejects', async () => {
    const all = await places(3);
    const stores = await Promise.all(all.map((place) => at(place)));
    const gathered = stores.slice(0, 2).map((store) => store.gather('never', 1));
    for (const each of gathered) each.catch(() => {}); // looked at below
    stores[2]!.begin(7);
    stores[2]!.fail('the disk is full');
    for (const [rank, store] of stores.entries()) {
      const error = await failureOf(store);
      assert.ok(error instanceof RankError);
      assert.equal(error.rank, 2);
      assert.match(error.message, /^rank 2 .*the disk is full$/);
      if (rank < 2) await assert.rejects(gathered[rank]!, error);
      await assert.rejects(store.gather('later', 1), error);
    }
    for (const store of stores) store.close();
  });

  it('takes a connection that is closed for the end of its process, rank 0’s too', async () => {
    for (const lost of [1, 0]) {
      const stores = await Promise.all((await places(2)).map((place) => at(place)));
      stores[lost]!.close();
      const error = await failureOf(stores[1 - lost]!);
      assert.match(error.message, new RegExp(`^rank ${lost} .*the process has ended`));
      stores[1 - lost]!.close();
    }
  });

  it('takes silence for a loss, and a rank that never comes', async () => {
    const [zero, one] = await places(2);
    const store = await at(zero!, { silenceSeconds: 0.1 });
    const silent = connect(one!.port, '127.0.0.1');
    silent.write(`${JSON.stringify({ type: 'hello', rank: 1, size: 2, version })}\n`);
    assert.match((await failureOf(store)).message, /^rank [01] has sent no heartbeat for 0.1 s/);
    silent.destroy();
    store.close();
    const alone = await at((await places(3))[0]!, { silenceSeconds: 1, startSeconds: 0.1 });
    assert.match((await failureOf(alone)).message, /^rank 1 has not come within 0.1 s \(ranks that have not: 1, 2\)/);
    alone.close();
  });

  it('refuses another version, another number of ranks, and a rank that is there already', async () => {
    for (const [change, options, message] of [
      [{}, { version: '9' }, /rank 1 is of minisequence 9, rank 0 of 1\.2\.3/],
      [{ size: 3 }, {}, /rank 1 has WORLD_SIZE 3, rank 0 has 2/],
      [{ rank: 0 }, {}, /rank 0 came twice/],
    ] as const) {
      const [zero, one] = await places(2);
      const store = await at(zero!);
      if ('rank' in change) {
        const other = connect(one!.port, '127.0.0.1');
        other.write(`${JSON.stringify({ type: 'hello', rank: 0, size: 2, version })}\n`);
        assert.match((await failureOf(store)).message, message);
        other.destroy();
      } else {
        const other = await at({ ...one!, ...change }, options);
        for (const each of [store, other]) assert.match((await failureOf(each)).message, message);
        other.close();
      }
      store.close();
    }
  });

  it('names a port that is in use, and an address that nobody listens on', async () => {
    const [zero, one] = await places(2);
    const store = await at(zero!);
    await assert.rejects(at(zero!), new RegExp(`MASTER_PORT: ${zero!.port} is in use`));
    store.close();
    const nobody = { ...one!, port: (await places(2))[0]!.port };
    await assert.rejects(
      at(nobody, { startSeconds: 0.1 }),
      /nobody was reached at 127\.0\.0\.1:\d+ within 0\.1 s: ECONNREFUSED/,
    );
  });

  it('outlives strangers at its port', async () => {
    const [zero, one] = await places(2);
    const store = await at(zero!);
    for (const text of ['GET / HTTP/1.1\r\n\r\n', '{"type":"beat","step":1}\n', 'null\n', '{}\n']) {
      const stranger = connect(zero!.port, '127.0.0.1');
      stranger.on('error', () => {});
      stranger.write(text);
      await once(stranger, 'close');
    }
    const other = await at(one!);
    assert.deepEqual(await Promise.all([store.gather('a', 1), other.gather('a', 2)]), [
      [1, 2],
      [1, 2],
    ]);
    await Promise.all([store.leave(), other.leave()]);
  });

  it('listens to its own machine alone where ranks meet there', async function () {
    const outside = Object.values(networkInterfaces())
      .flat()
      .find((each) => each?.family === 'IPv4' && !each.internal);
    const [zero] = await places(2);
    const store = await at(zero!);
    try {
      if (!outside) return this.skip(); // the machine has no other address
      const stranger = connect(zero!.port, outside.address);
      const [error] = await once(stranger, 'error');
      assert.equal(error.code, 'ECONNREFUSED');
    } finally {
      store.close();
    }
  });
});
