// Memory of the host beside a device's: the slab and its blocks, copies there and back, and what is refused.
import assert from 'node:assert/strict';
import { embedding, OutOfMemoryError, openDevice, tensor, zeros } from '../../lib/index.ts';
import { type HostAllocator, HostMemory } from '../../lib/runtime/memory/host_memory.ts';
import { addon } from '../../lib/runtime/native.ts';
import { empty } from '../../lib/runtime/tensor.ts';
import { itOnCpu, openTestDevice } from '../support/devices.ts';

const SIZE = 2 ** 14;
const numbers = Float32Array.from({ length: SIZE / 4 }, (_, i) => i);

/** Notes what is allocated and freed; of `available` bytes. */
function recorded(available = Infinity) {
  const calls: string[] = [];
  let used = 0;
  const sizes = new Map<number, number>();
  const allocator: HostAllocator = {
    name: 'fake',
    allocate(bytes) {
      if (used + bytes > available) throw Object.assign(new Error('no more'), { code: 'OUT_OF_MEMORY' });
      used += bytes;
      const address = 4096 * calls.push(`allocate ${bytes}`);
      sizes.set(address, bytes);
      return address;
    },
    free(address) {
      used -= sizes.get(address)!;
      calls.push(`free ${sizes.get(address)}`);
    },
  };
  return { allocator, calls };
}

describe('host memory', () => {
  it('is one slab of the requested size, until more is requested', () => {
    const { allocator, calls } = recorded();
    const host = new HostMemory(allocator, 2 ** 20);
    assert.equal(host.bytes, 0);
    host.reserve(2048);
    host.reserve(1024);
    assert.equal(host.bytes, 2048);
    const blocks = [512, 700].map((bytes) => host.allocate(bytes));
    assert.deepEqual(
      blocks.map(({ address, size }) => [address - blocks[0]!.address, size]),
      [
        [0, 512],
        [512, 1024],
      ],
    );
    assert.equal(host.liveBytes, 1536);
    host.reserve(512);
    assert.throws(
      () => host.reserve(513),
      /513 B more do not fit in the slab of 2.00 KiB, of which 1.50 KiB are in use/,
    );
    assert.throws(() => host.allocate(1024), /1.00 KiB more do not fit in the slab of 2.00 KiB/);
    for (const block of blocks) host.release(block);
    assert.equal(host.liveBytes, 0);
    host.reserve(4096);
    assert.deepEqual(calls, ['allocate 2048', 'free 2048', 'allocate 4096']);
  });

  it('over its limit, or over what there is, is refused with both numbers; less serves afterwards', () => {
    const { allocator } = recorded(4096);
    const host = new HostMemory(allocator, 8192);
    assert.throws(() => host.reserve(16384), /fake: out of host memory: 16.00 KiB .* hostMemoryLimit 8.00 KiB/);
    assert.throws(
      () => host.reserve(8192),
      (error: OutOfMemoryError) => {
        assert.ok(error instanceof OutOfMemoryError);
        assert.match(error.message, /8.00 KiB .* could not be allocated \(no more\), although hostMemoryLimit allows/);
        assert.deepEqual([error.requestedBytes, error.limitBytes], [8192, 8192]);
        return true;
      },
    );
    assert.equal(host.bytes, 0);
    host.reserve(4096);
    assert.equal(host.bytes, 4096);
    assert.throws(() => new HostMemory(allocator, 0).reserve(1), /do not fit in hostMemoryLimit 0 B/);
  });

  it('takes copies of the device, and gives them back', async () => {
    using device = openTestDevice({ hostMemoryLimit: 2 ** 20 });
    device.host.reserve(2 * SIZE);
    assert.equal(device.memory().hostBytes, 2 * SIZE);
    const blocks = [1, 2].map(() => device.host.allocate(SIZE));
    const values = [numbers, numbers.map((x) => -x)];
    const events = blocks.map(({ address }, i) => {
      using x = tensor(values[i]!, { device });
      const event = device.copyBeside('toHost', address, x.view[0]!, SIZE);
      x.recordEvent(event);
      return event;
    });
    zeros([SIZE / 4], { device }).dispose(); // in the place of what was copied
    for (const event of events) device.arena.waitFor(event);
    for (const i of [1, 0]) {
      using back = empty([SIZE / 4], { device });
      const event = device.copyBeside('toDevice', back.view[0]!, blocks[i]!.address, SIZE);
      device.arena.waitFor(event);
      assert.deepEqual(await back.data(), values[i]);
    }
    for (const block of blocks) device.host.release(block);
    device.host.reserve(8 * SIZE); // frees the slab and allocates another
    const block = device.host.allocate(SIZE);
    using x = tensor(numbers, { device });
    using back = zeros([SIZE / 4], { device });
    device.arena.waitFor(device.copyBeside('toHost', block.address, x.view[0]!, SIZE));
    device.arena.waitFor(device.copyBeside('toDevice', back.view[0]!, block.address, SIZE));
    assert.deepEqual(await back.data(), numbers);
  });

  it('hands on that what was copied there had failed, and is good again when overwritten', async () => {
    using device = openTestDevice({ hostMemoryLimit: 2 ** 20 });
    device.host.reserve(SIZE);
    const { address } = device.host.allocate(SIZE);
    using weight = zeros([4, 128], { device });
    using ids = tensor(Int32Array.of(99), { device });
    using failed = embedding(weight, ids);
    device.arena.waitFor(device.copyBeside('toHost', address, failed.view[0]!, 512));
    using back = zeros([1, 128], { device });
    device.arena.waitFor(device.copyBeside('toDevice', back.view[0]!, address, 512));
    await assert.rejects(back.data(), /embedding_forward: row 0 holds id 99/);
    using good = tensor(numbers.subarray(0, 128), { device, shape: [1, 128] });
    device.arena.waitFor(device.copyBeside('toHost', address, good.view[0]!, 512));
    device.arena.waitFor(device.copyBeside('toDevice', back.view[0]!, address, 512));
    assert.deepEqual(await back.data(), numbers.slice(0, 128));
  });

  it('is reached by copies in its bounds, on its side, and freed once', () => {
    using device = openTestDevice({ hostMemoryLimit: 2 ** 20 });
    device.host.reserve(2 ** 16);
    const { address } = device.host.allocate(SIZE);
    using x = zeros([SIZE / 4], { device });
    const at = x.view[0]!;
    const end = address + 2 ** 16;
    assert.throws(() => device.copyBeside('toHost', end - 256, at, 512), /argument 3: 512 bytes there are not in/);
    assert.throws(() => device.copyBeside('toDevice', at, address - 1, 512), /argument 4: 512 bytes there are not in/);
    assert.throws(() => device.copyBeside('toHost', at, address, 512), /argument 4: 512 bytes there are not in/);
    assert.throws(() => device.copyBeside('toDevice', address, at, 512), /argument 3: 512 bytes there are not in/);
    assert.throws(
      () => addon().free_host(device.id!, address + 512),
      /argument 2: no host memory of the device begins/,
    );
    addon().free_host(device.id!, address);
    assert.throws(() => addon().free_host(device.id!, address), /argument 2: no host memory of the device begins/);
    assert.throws(() => device.copyBeside('toHost', address, at, 512), /argument 3: 512 bytes there are not in/);
    for (const bytes of [0, -1, 0.5, Number.NaN, 2 ** 53]) {
      assert.throws(() => addon().allocate_host(device.id!, bytes), /argument 2 must be an integer from 1/);
    }
  });

  itOnCpu('that the host has not is an error with a code', () => {
    using device = openTestDevice();
    const tooMuch = 2 ** 52; // more than a process has addresses for
    assert.throws(() => addon().allocate_host(device.id!, tooMuch), { code: 'OUT_OF_MEMORY' });
  });

  it('is counted on meta, and freed with its device', () => {
    const meta = openDevice('meta', { hostMemoryLimit: 2 ** 50 });
    meta.host.reserve(2 ** 49);
    assert.equal(meta.memory().hostBytes, 2 ** 49);
    meta.close();
    const device = openTestDevice({ hostMemoryLimit: 2 ** 20 });
    device.host.reserve(2 ** 20);
    device.close();
  });

  it('has a limit that is a number and no more than the machine has', () => {
    for (const hostMemoryLimit of [-1, Number.NaN, '1e9' as never]) {
      assert.throws(() => openDevice('meta', { hostMemoryLimit }), /openDevice: hostMemoryLimit must be a number of b/);
    }
    const most = /openDevice: hostMemoryLimit must be at most this machine's memory, \d.*iB, got 1024.00 TiB/;
    assert.throws(() => openDevice('cpu', { hostMemoryLimit: 2 ** 50 }), most);
  });
});
