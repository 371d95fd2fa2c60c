// Copies beside commands: what is freed while a copy uses it, on a model whose copies run as late as the waits allow, and on a device.
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { embedding, openDevice, tensor, zeros } from '../../lib/index.ts';
import { Arena, type Block } from '../../lib/runtime/memory/arena.ts';
import { addon } from '../../lib/runtime/native.ts';
import { empty } from '../../lib/runtime/tensor.ts';
import { openTestDevice } from '../support/devices.ts';

const SIZE = 2 ** 16;
const LIMIT = 2 ** 20;

/** A device whose commands run at once and whose copies run only when somebody waits for them. */
class LateCopies {
  readonly bytes = new Uint8Array(LIMIT);
  readonly #pending = new Map<number, () => void>();
  #numEvents = 0;
  numWaits = 0;
  readonly arena: Arena;

  constructor(debug = false) {
    const memory = {
      name: 'late',
      granularity: 4096,
      map() {},
      fill: (offset: number, value: number, bytes: number) => void this.bytes.fill(value, offset, offset + bytes),
      check: (offset: number, value: number, bytes: number) =>
        assert(this.bytes.subarray(offset, offset + bytes).every((byte) => byte === value)),
      waitFor: (event: number) => {
        this.numWaits += 1;
        this.#pending.get(event)?.();
        this.#pending.delete(event);
      },
    };
    this.arena = new Arena(memory, { memoryLimit: LIMIT, debug });
  }

  fill({ offset, size }: Block, value: number): void {
    this.bytes.fill(value, offset, offset + size);
  }
  /** @returns the event, and the bytes once they are there */
  copyOut({ offset, size }: Block): { event: number; copied: Uint8Array } {
    const copied = new Uint8Array(size);
    this.#pending.set(++this.#numEvents, () => copied.set(this.bytes.subarray(offset, offset + size)));
    return { event: this.#numEvents, copied };
  }
}

describe('an arena with copies under way', () => {
  for (const debug of [false, true]) {
    it(`keeps what a copy reads until its event${debug ? ', also from poison' : ''}`, () => {
      const device = new LateCopies(debug);
      const block = device.arena.allocate(SIZE, 'checkpoint');
      device.fill(block, 1);
      const { event, copied } = device.copyOut(block);
      device.arena.release(block, event);
      assert.equal(device.arena.statistics().liveBytes, 0);
      const next = device.arena.allocate(SIZE, 'activation');
      assert.equal(next.offset, block.offset);
      device.fill(next, 2);
      device.arena.waitFor(event);
      assert.deepEqual(copied, new Uint8Array(SIZE).fill(1));
    });
  }

  it('waits only where bytes are used again, and once for each copy', () => {
    const device = new LateCopies();
    const blocks = [1, 2, 3].map(() => device.arena.allocate(SIZE, 'checkpoint'));
    const { event } = device.copyOut(blocks[0]!);
    device.arena.release(blocks[0]!, event);
    device.arena.release(blocks[1]!, event);
    device.arena.allocate(2 ** 18, 'other'); // beyond all blocks
    assert.equal(device.numWaits, 0);
    device.arena.allocate(SIZE / 2, 'other');
    assert.equal(device.numWaits, 1);
    device.arena.allocate(SIZE, 'other');
    device.arena.allocate(SIZE / 2, 'other');
    assert.equal(device.numWaits, 1);
  });

  it('waits for every copy whose bytes a block spans', () => {
    const device = new LateCopies();
    const blocks = [1, 2].map(() => device.arena.allocate(SIZE, 'checkpoint'));
    for (const block of blocks) device.arena.release(block, device.copyOut(block).event);
    device.arena.allocate(2 * SIZE, 'other');
    assert.equal(device.numWaits, 2);
  });

  it('never lets a copy meet bytes of the next owner, and counts as an arena without copies', () => {
    const step = fc.record({ blocks: fc.integer({ min: 1, max: 40 }), index: fc.nat(), copies: fc.boolean() });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const device = new LateCopies();
        const plain = new LateCopies();
        const live: { block: Block; same: Block; value: number }[] = [];
        const out: { event: number; copied: Uint8Array; value: number }[] = [];
        for (const [i, { blocks, index, copies }] of steps.entries()) {
          if (live.length > 4) {
            const [{ block, same, value }] = live.splice(index % live.length, 1) as [(typeof live)[number]];
            if (copies) {
              const copy = device.copyOut(block);
              out.push({ ...copy, value });
              device.arena.release(block, copy.event);
            } else device.arena.release(block);
            plain.arena.release(same);
          }
          const block = device.arena.allocate(512 * blocks, 'other');
          device.fill(block, i + 1);
          live.push({ block, same: plain.arena.allocate(512 * blocks, 'other'), value: i + 1 });
          assert.deepEqual(device.arena.statistics(), plain.arena.statistics());
        }
        for (const { event, copied, value } of out) {
          device.arena.waitFor(event);
          assert(copied.every((byte) => byte === value));
        }
      }),
    );
  });
});

describe('copies beside commands', () => {
  const numbers = Float32Array.from({ length: 2 ** 12 }, (_, i) => i);

  for (const way of ['toHost', 'toDevice'] as const) {
    it(`${way}: bytes arrive, and their source is used again`, async () => {
      using device = openTestDevice();
      const bytes = numbers.byteLength;
      using to = empty([2 ** 12], { device }).keep();
      const from = device.arena.allocate(bytes, 'checkpoint');
      using source = tensor(numbers, { device });
      addon().copy_within(device.id!, device.address(from.offset), source.view[0]!, bytes);
      const event = device.copyBeside(way, to.view[0]!, device.address(from.offset), bytes);
      device.arena.release(from, event);
      const next = device.arena.allocate(bytes, 'other');
      assert.equal(next.offset, from.offset);
      addon().fill_bytes(device.id!, device.address(next.offset), 255, bytes);
      device.arena.waitFor(event);
      assert.deepEqual(await to.data(), numbers);
      device.arena.release(next);
    });
  }

  it('hand on that their source has failed, there and back', async () => {
    using device = openTestDevice();
    const ids = tensor(Int32Array.of(99), { device });
    const failed = embedding(zeros([4, 128], { device }), ids);
    const [out, back] = [zeros([1, 128], { device }), zeros([1, 128], { device })];
    const there = device.copyBeside('toHost', out.view[0]!, failed.view[0]!, 512);
    device.arena.waitFor(there);
    const again = device.copyBeside('toDevice', back.view[0]!, out.view[0]!, 512);
    device.arena.waitFor(again);
    for (const copy of [out, back]) await assert.rejects(copy.data(), /embedding_forward: row 0 holds id 99/);
    await device.synchronize();
  });

  it('are waited for by close and by synchronize', async () => {
    const device = openTestDevice();
    const [a, b] = [1, 2].map(() => device.arena.allocate(2 ** 20, 'other')) as [Block, Block];
    device.copyBeside('toHost', device.address(b.offset), device.address(a.offset), 2 ** 20);
    await device.synchronize();
    device.copyBeside('toHost', device.address(b.offset), device.address(a.offset), 2 ** 20);
    device.close();
    assert.throws(() => device.copyBeside('toHost', 0, 0, 1), /the device was closed/);
    device.arena.release(a, 1); // tensors may be disposed after their device
  });

  it('of bytes outside of the device, and waits for events that never were, are refused', () => {
    using device = openTestDevice();
    const block = device.arena.allocate(512, 'other');
    const at = device.address(block.offset);
    assert.throws(
      () => device.copyBeside('toHost', 0, at, 512),
      /argument 3: 512 bytes there are not in the device's memory/,
    );
    assert.throws(
      () => device.copyBeside('toHost', at, 0, 512),
      /argument 4: 512 bytes there are not in the device's memory/,
    );
    assert.throws(() => addon().copy_beside(device.id!, 2, at, at, 512), /argument 2 must be an integer from 0 to 1/);
    assert.throws(() => device.arena.waitFor(1), /argument 2 must be an integer from 1 to 0/);
  });

  it('number their events on meta too', () => {
    using device = openDevice('meta');
    const block = device.arena.allocate(512, 'other');
    assert.deepEqual(
      [1, 2].map(() => device.copyBeside('toDevice', 0, 0, 512)),
      [1, 2],
    );
    device.arena.release(block, 2);
    assert.equal(device.arena.allocate(512, 'other').offset, block.offset);
  });
});
