// Memory of the host beside a device's: the slab and its blocks, copies there and back, and what is refused.
import assert from 'node:assert/strict';
import {
  AdamW,
  Decoder,
  decoderConfig,
  embedding,
  OutOfMemoryError,
  openDevice,
  TrainStep,
  tensor,
  zeros,
} from '../../lib/index.ts';
import { type HostAllocator, HostMemory } from '../../lib/runtime/memory/host_memory.ts';
import { addon } from '../../lib/runtime/native.ts';
import { empty } from '../../lib/runtime/tensor.ts';
import { openTestDevice } from '../support/devices.ts';
import { integers } from '../support/random.ts';
import { tinyLlama } from '../support/runs.ts';

const SIZE = 2 ** 14;
const numbers = Float32Array.from({ length: SIZE / 4 }, (_, i) => i);

/** Resolves when the event loop has turned `count` times. */
async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise(setImmediate);
}

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
    async reallocate(address, bytes) {
      if (address !== 0) allocator.free(address);
      await turns(10);
      return allocator.allocate(bytes);
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

  it('comes while the event loop turns; who asks meanwhile gets its own in turn, or is told', async () => {
    const { allocator, calls } = recorded(8192);
    const host = new HostMemory(allocator, 2 ** 20);
    let numTurns = 0;
    let isDone = false;
    const count = () => {
      numTurns += 1;
      if (!isDone) setImmediate(count);
    };
    setImmediate(count);
    const both = Promise.all([host.prepare(1024), host.prepare(4096), host.prepare(2048)]);
    assert.throws(() => host.reserve(512), /fake: host memory: 512 B are wanted while another slab is being allocated/);
    await both;
    isDone = true;
    assert.ok(numTurns >= 20, `${numTurns}`);
    assert.equal(host.bytes, 4096);
    await assert.rejects(host.prepare(8193), /8.00 KiB .* could not be allocated \(no more\), although .* 1.00 MiB/);
    assert.equal(host.bytes, 0);
    await assert.rejects(host.prepare(2 ** 21), /2.00 MiB .* do not fit in hostMemoryLimit 1.00 MiB/);
    await host.prepare(512);
    const block = host.allocate(512);
    await assert.rejects(host.prepare(513), /513 B more do not fit in the slab of 512 B, of which 512 B are in use/);
    host.release(block);
    host.reserve(512);
    assert.deepEqual(calls, ['allocate 1024', 'free 1024', 'allocate 4096', 'free 4096', 'allocate 512']);
  });

  it('is allocated by the command thread: a step that needs it waits, and the event loop does not', async () => {
    using device = openTestDevice({ hostMemoryLimit: 2 ** 20 });
    const calls = addon();
    const { reallocate_host } = calls;
    let numTurns = 0;
    calls.reallocate_host = async (...args) => {
      for (; numTurns < 25; numTurns++) await turns(1);
      return reallocate_host(...args);
    };
    try {
      using model = new Decoder(decoderConfig(tinyLlama), { device }).initialize(1);
      using optimizer = new AdamW(model.trainableParameters());
      const policy = {
        mlpChunkSize: 24,
        lossChunkSize: 24,
        mlpSave: 'input',
        recompute: 'layer',
        offloadedInputs: 2,
      } as const;
      using step = new TrainStep(model, optimizer, { policy });
      const batch = { inputs: integers(31, 256, 1), targets: integers(31, 256, 2), T: 31 };
      const stopped = new AbortController();
      const running = step.run([batch], { learningRate: 1e-3, signal: stopped.signal });
      setImmediate(() => stopped.abort(new Error('stopped while memory comes')));
      await assert.rejects(running, /stopped while memory comes/);
      assert.equal(numTurns, 25);
      assert.ok(device.host.bytes > 0);
      const { loss } = await step.run([batch], { learningRate: 1e-3 });
      assert.ok(Number.isFinite(await loss));
    } finally {
      calls.reallocate_host = reallocate_host;
    }
  });

  it('that came with the error of an earlier command is freed', async () => {
    using device = openTestDevice({ hostMemoryLimit: 2 ** 20 });
    await device.host.prepare(SIZE);
    using x = zeros([SIZE / 4], { device });
    addon().check_bytes(device.id!, x.view[0]!, 1, 16, 'zeros');
    await assert.rejects(device.host.prepare(2 * SIZE), /zeros: byte 0 was overwritten/);
    assert.equal(device.host.bytes, 0);
    await device.host.prepare(2 * SIZE);
    assert.equal(device.host.bytes, 2 * SIZE);
    const { address } = device.host.allocate(SIZE);
    device.arena.waitFor(device.copyBeside('toHost', address, x.view[0]!, SIZE));
    await device.synchronize();
    await assert.rejects(async () => addon().reallocate_host(device.id!, 4096, 4096), /argument 2: no host memory/);
  });

  it('takes copies of the device, and gives them back', async () => {
    using device = openTestDevice({ hostMemoryLimit: 2 ** 20 });
    await device.host.prepare(2 * SIZE);
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
    await device.host.prepare(8 * SIZE); // frees the slab and allocates another
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

  it('that the host has not is an error with a code, and both numbers', async () => {
    using device = openTestDevice();
    const tooMuch = 2 ** 52;
    const error = {
      code: 'OUT_OF_MEMORY',
      message: /the host has \d+ bytes for this process, and 4503599627370496 were/,
    };
    assert.throws(() => addon().allocate_host(device.id!, tooMuch), error);
    await assert.rejects(addon().reallocate_host(device.id!, 0, tooMuch), error);
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
