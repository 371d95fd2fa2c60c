// Options of devices that the machine's kind decides about.
import assert from 'node:assert/strict';
import { openDevice, type Target } from '../lib/index.ts';
import { testDevice } from './support/devices.ts';

describe('deterministic', () => {
  it('excludes attention by cuDNN', () => {
    for (const name of [testDevice, 'meta'] as const) {
      assert.throws(() => openDevice(name, { deterministic: true, attention: 'cudnn' }), {
        name: 'RangeError',
        message: /^openDevice: deterministic and attention 'cudnn', .* exclude each other$/,
      });
    }
  });

  it('means own attention, also where meta imitates a GPU', () => {
    for (const attention of ['auto', 'own', undefined] as const) {
      using device = openDevice(testDevice, { deterministic: true, attention });
      const { target } = device;
      if (target.kind === 'cuda') assert.equal(target.attention, 'own');
    }
    const targetOf = (like: Target) => {
      using meta = openDevice('meta', { deterministic: true, like });
      return meta.target;
    };
    assert.deepEqual(targetOf({ kind: 'cuda', attention: 'cudnn' }), { kind: 'cuda', attention: 'own' });
    assert.deepEqual(targetOf({ kind: 'cpu', threads: 3 }), { kind: 'cpu', threads: 3 });
  });

  it('changes nothing on the CPU', () => {
    using device = openDevice('cpu', { deterministic: true, threads: 2 });
    assert.deepEqual(device.target, { kind: 'cpu', threads: 2 });
  });
});
