// The device that op tests run on: red zones around every tensor, NaN in memory that nobody has written.
import assert from 'node:assert/strict';
import { type Device, openDevice } from '../../lib/index.ts';

let debugging: Device | null = null;

export function debugDevice(): Device {
  debugging ??= openDevice('cpu', { debug: true, threads: 2, memoryLimit: 2 ** 31 });
  return debugging;
}

/** Runs `fn` and fails if it leaves memory behind or a kernel has left its tensors. */
export async function leavingNothing<T>(device: Device, fn: () => T | Promise<T>): Promise<T> {
  const before = device.memory().liveBytes;
  const result = await fn();
  await device.synchronize();
  assert.equal(device.memory().liveBytes, before, 'bytes left behind');
  return result;
}
