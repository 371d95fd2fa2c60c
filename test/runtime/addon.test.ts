// The addon trusts no caller: every number that JavaScript passes is checked before anything is enqueued.
import assert from 'node:assert/strict';
import { openDevice, tensor, zeros } from '../../lib/index.ts';
import { addon } from '../../lib/runtime/native.ts';

describe('the addon', () => {
  it('checks its own arguments', () => {
    const call = addon() as unknown as Record<string, (...args: unknown[]) => void>;
    assert.throws(() => call.add!(1), /takes 3 arguments, got 0/);
    assert.throws(() => call.add!('x', 1, 2, 3), /the device must be a number/);
    assert.throws(() => call.add!(12345, 1, 2, 3), /device 12345 is not open/);
    const x = zeros([1]);
    assert.throws(() => call.add!(x.device.id, x.view, x.view, 'y'), /add: argument 3 must be a tensor's view/);
    assert.throws(() => call.scale!(x.device.id, x.view, x.view, 'y'), /scale: argument 3 must be a number/);
    x.dispose();
  });

  // [address, dtype, device, row stride, rows, columns, -owner]
  const numbers: [string, number, (value: number) => number][] = [
    ['address NaN', 0, () => Number.NaN],
    ['address Infinity', 0, () => Infinity],
    ['address 2^64', 0, () => 2 ** 64],
    ['address -1', 0, () => -1],
    ['address 0', 0, () => 0],
    ['address with a fraction', 0, (address) => address + 0.5],
    ['address inside an element', 0, (address) => address + 1],
    ['address beyond the memory', 0, (address) => address + 2 ** 40],
    ['address before the memory', 0, (address) => address - 2 ** 20],
    ['dtype 5', 1, () => 5],
    ['dtype -1', 1, () => -1],
    ['dtype NaN', 1, () => Number.NaN],
    ['dtype 0.5', 1, () => 0.5],
    ['device NaN', 2, () => Number.NaN],
    ['another device', 2, (device) => device + 1],
    ['row stride NaN', 3, () => Number.NaN],
    ['row stride -8', 3, () => -8],
    ['row stride 7', 3, () => 7],
    ['row stride 2^53', 3, () => 2 ** 53],
    ['row stride beyond the memory', 3, () => 2 ** 50],
    ['rows NaN', 4, () => Number.NaN],
    ['rows Infinity', 4, () => Infinity],
    ['rows 2^63', 4, () => 2 ** 63],
    ['rows 2^52', 4, () => 2 ** 52],
    ['rows -1', 4, () => -1],
    ['rows 2.5', 4, () => 2.5],
    ['rows beyond the memory', 4, () => 2 ** 30],
    ['columns -1', 5, () => -1],
    ['columns 9', 5, () => 9],
  ];
  it("refuses a tensor's view with a field that is not a number, before anything runs", async () => {
    using device = openDevice('cpu');
    using x = tensor(new Float32Array(32).fill(5), { shape: [4, 8], device }).keep();
    for (const [what, index, change] of numbers) {
      const view = Float64Array.from(x.view);
      view[index] = change(view[index]!);
      const arguments_: unknown[] = [view, 1];
      assert.throws(() => addon().fill!(device.id!, ...arguments_), /TypeError: fill: argument 1 must be/, what);
    }
    for (const view of [new Float64Array(3), new Float64Array(10), new Float32Array(7), [...x.view], null, 1]) {
      assert.throws(() => addon().fill!(device.id!, view, 1), /TypeError: fill: argument 1 must be a tensor's view/);
    }
    assert.deepEqual(await x.data(), new Float32Array(32).fill(5));
  });

  it('refuses invalid integers, enums and pieces of memory', async () => {
    using device = openDevice('cpu');
    using x = tensor(new Float32Array(32).fill(5), { shape: [4, 8], device }).keep();
    const id = device.id!;
    const [address] = x.view as unknown as [number];
    const native = addon() as unknown as Record<string, (...args: unknown[]) => unknown>;
    const wrong = [Number.NaN, Infinity, -Infinity, 2 ** 53, 2 ** 63, 0.5, '1', null, undefined, 1n];
    for (const value of wrong) {
      const calls: [string, unknown[]][] = [
        ['random_normal', [id, x.view, 0, 1, value, 0, 0]],
        ['glu_forward', [id, x.view, x.view, x.view, value]],
        ['write', [id, value, new Uint8Array(4)]],
        ['write', [id, address, new Uint8Array(4), value ?? null]],
        ['read', [id, value, new Uint8Array(4)]],
        ['map', [id, value, 65536]],
        ['map', [id, address, value]],
        ['unmap', [id, value, 65536]],
        ['reserve', [id, value]],
        ['fill_bytes', [id, value, 0, 4]],
        ['fill_bytes', [id, address, value, 4]],
        ['fill_bytes', [id, address, 0, value]],
        ['check_bytes', [id, address, 5, value, 'what']],
        ['copy_within', [id, address, value, 4]],
        ['open_device', ['cpu', value, 1, 'builtin', 'builtin', '']],
        ['open_device', ['cpu', 0, value, 'builtin', 'builtin', '']],
        ['synchronize', [value]],
        ['close_device', [value]],
      ];
      for (const [name, args] of calls)
        assert.throws(() => native[name]!(...args), /Error: /, `${name} ${String(value)}`);
    }
    const pieces: [string, unknown[]][] = [
      ['glu_forward', [id, x.view, x.view, x.view, 2]],
      ['glu_forward', [id, x.view, x.view, x.view, -1]],
      ['write', [id, address + 2 ** 40, new Uint8Array(4)]],
      ['write', [id, address, new Uint8Array(2 ** 24)]],
      ['read', [id, 0, new Uint8Array(4)]],
      ['map', [id, address, 1]],
      ['map', [id, 0, 65536]],
      ['map', [id, address, 0]],
      ['unmap', [id, address + 2 ** 24, 65536]],
      ['copy_within', [id, address, address, 2 ** 24]],
      ['fill_bytes', [id, address, 256, 4]],
      ['open_device', ['gpu', 0, 1, 'builtin', 'builtin', '']],
      ['open_device', ['cpu', 0, 0, 'builtin', 'builtin', '']],
      ['open_device', ['cuda', 2 ** 32, 1, 'builtin', 'builtin', '']],
      ['set_cuda_library_path', ['/usr/lib']],
    ];
    for (const [name, args] of pieces) assert.throws(() => native[name]!(...args), /Error: /, name);
    assert.deepEqual(await x.data(), new Float32Array(32).fill(5));
  });

  it('survives: a getter of an argument may close the device', () => {
    const device = openDevice('cpu');
    const [x, w, h] = [zeros([2, 2], { device }), zeros([2, 2], { device }), zeros([2, 4], { device })];
    const weights = { gate: w.view, up: w.view, down: w.view };
    const gate = Object.defineProperty({ a: w.view }, 'b', { get: () => device.close() });
    const gateUp = { memory: h.view, isKept: false };
    const call = () =>
      addon().chunked_mlp_forward!(device.id!, x.view, weights, x.view, gateUp, w.view, null, 0, { gate });
    assert.throws(call, /chunked_mlp_forward: argument 8\.gate\.b must be a tensor's view/);
    for (const each of [x, w, h]) each.dispose();
  });
});
