// The device that tests run on: MST_TEST_DEVICE, which is the CPU unless `./gpu test` says otherwise.
import assert from 'node:assert/strict';
import {
  type Device,
  type DeviceName,
  type DeviceOptions,
  type DeviceTarget,
  openDevice,
  type Tensor,
} from '../../lib/index.ts';

export const testDevice = (process.env.MST_TEST_DEVICE ?? 'cpu') as DeviceName;
/** CUDA computes in f32 and bf16: what is held against differences in f64 on the CPU is there held against the CPU's f64. */
export const hasFloat64 = testDevice === 'cpu';
/** A test in f64, of the host's memory or of its small pages. */
export const itOnCpu = hasFloat64 ? it : skipped('on the CPU alone');
/** A test of what only a GPU's driver or memory does. */
export const itOnCuda = hasFloat64 ? skipped('on CUDA alone') : it;
/** The most precise dtype of the device. */
export const precise = hasFloat64 ? 'float64' : 'float32';
/** A tolerance for `precise`. */
export const within = (tolerances: { float64: number; float32: number }): number => tolerances[precise];

/** In place of `it` where tests run on the other device: says so in the report. */
function skipped(why: string) {
  return (title: string, _test: Mocha.AsyncFunc | Mocha.Func): Mocha.Test => it.skip(`${title} (${why})`);
}

/** A device of its own, with two threads. */
export function openTestDevice(options: DeviceOptions = {}): Device {
  return openDevice(testDevice, { threads: 2, ...options });
}

let target: DeviceTarget | null = null;

/** What `meta` must imitate to predict the test device. */
export function testTarget(): DeviceTarget {
  if (!target) {
    using device = openTestDevice();
    target = device.target;
  }
  return target;
}

const debugging = new Map<DeviceName, Device>();
let current = testDevice;

/** The test device, or the one that onDevice() names, with red zones around every tensor and NaN in memory that nobody has written. */
export function debugDevice(): Device {
  const device = debugging.get(current) ?? openDevice(current, { debug: true, threads: 2, memoryLimit: 2 ** 31 });
  debugging.set(current, device);
  return device;
}

/** Runs `fn` with another debugDevice(). */
export async function onDevice<T>(name: DeviceName, fn: () => Promise<T>): Promise<T> {
  const before = current;
  current = name;
  try {
    return await fn();
  } finally {
    current = before;
  }
}

/** Runs `fn` and fails if it leaves memory behind or a kernel has left its tensors. */
export async function leavingNothing<T>(device: Device, fn: () => T | Promise<T>): Promise<T> {
  const before = device.memory().liveBytes;
  const result = await fn();
  await device.synchronize();
  assert.equal(device.memory().liveBytes, before, 'bytes left behind');
  return result;
}

/** The elements, exactly. */
export async function valuesOf(tensor: Tensor): Promise<Float64Array> {
  return Float64Array.from(tensor.dtype === 'bfloat16' ? await tensor.toFloat32() : await tensor.data());
}
