// Options of devices that the machine's kind decides about.
import assert from 'node:assert/strict';
import { type DeviceTarget, getDevice, openDevice } from '../../lib/index.ts';
import { testDevice } from '../support/devices.ts';

describe('deterministic', () => {
  it('excludes attention by cuDNN', () => {
    for (const name of [testDevice, 'meta'] as const) {
      assert.throws(() => openDevice(name, { deterministic: true, attention: 'cudnn' }), {
        name: 'RangeError',
        message: /^openDevice: deterministic excludes attention 'cudnn', .* not bitwise reproducible$/,
      });
    }
  });

  it('means the built-in attention, also where meta imitates a GPU', () => {
    for (const attention of ['auto', 'builtin', undefined] as const) {
      using device = openDevice(testDevice, { deterministic: true, attention });
      const { target } = device;
      if (target.kind === 'cuda') assert.equal(target.attention, 'builtin');
    }
    const targetOf = (like: DeviceTarget) => {
      using meta = openDevice('meta', { deterministic: true, like });
      return meta.target;
    };
    assert.deepEqual(targetOf({ kind: 'cuda', attention: 'cudnn' }), { kind: 'cuda', attention: 'builtin' });
    assert.deepEqual(targetOf({ kind: 'cpu', threads: 3 }), { kind: 'cpu', threads: 3 });
  });

  it('changes nothing on the CPU', () => {
    using device = openDevice('cpu', { deterministic: true, threads: 2 });
    assert.deepEqual(device.target, { kind: 'cpu', threads: 2 });
  });
});

describe('options of a device', () => {
  const refused: [string, object][] = [
    ['threads', { threads: 0 }],
    ['threads', { threads: 1.5 }],
    ['threads', { threads: Number.NaN }],
    ['threads', { threads: 2 ** 32 + 1 }],
    ['threads', { threads: '2' }],
    ['memoryLimit', { memoryLimit: 0 }],
    ['memoryLimit', { memoryLimit: Number.NaN }],
    ['memoryLimit', { memoryLimit: '1e9' }],
    ['debug', { debug: 1 }],
    ['deterministic', { deterministic: 'false' }],
    ['tuneMatmul', { tuneMatmul: 1 }],
    ['attention', { attention: 'constructor' }],
    ['matmul', { matmul: 'toString' }],
  ];
  for (const [option, options] of refused) {
    it(`${JSON.stringify(options)} is refused by name`, () => {
      for (const name of ['cpu', 'meta'] as const) {
        assert.throws(() => openDevice(name, options), new RegExp(`Error: openDevice: ${option} must be`));
      }
    });
  }

  it('are those of the machine that meta imitates, too', () => {
    for (const like of [
      { kind: 'cpu', threads: 0.5 },
      { kind: 'cpu' },
      { kind: 'gpu' },
      { kind: 'cuda', attention: 'x' },
    ]) {
      assert.throws(
        () => openDevice('meta', { like: like as DeviceTarget }),
        /RangeError: openDevice: like\.\w+ must be/,
      );
    }
  });

  it('begin with a name that is one', () => {
    for (const name of ['cuda:4294967296', 'cuda:-1', 'cuda:1.5', 'cuda:', 'cpu:0', 'CPU', '', null, 0]) {
      assert.throws(() => openDevice(name as never), /RangeError: device: '.*' is none of/);
      assert.throws(() => getDevice(name as never), /RangeError: device: '.*' is none of/);
    }
  });
});
