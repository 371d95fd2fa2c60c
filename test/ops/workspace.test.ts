// Sizes of chunks and of scratch memory, which are functions of shapes alone.
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { type DeviceTarget, openDevice, tidy } from '../../lib/index.ts';
import {
  attentionBackwardWorkspace,
  attentionForwardWorkspace,
  defaultChunkSize,
  evenChunkSize,
  logitsWorkspace,
  matmulWorkspace,
  sortWorkspace,
} from '../../lib/ops/workspace.ts';

const MIB = 2 ** 20;
const cpu: DeviceTarget = { kind: 'cpu', threads: 3 };
const cuda: DeviceTarget = { kind: 'cuda' };
const cudnn: DeviceTarget = { kind: 'cuda', attention: 'cudnn' };

/** Bytes of what `make` makes on a device that imitates `like`; 0 where it is null. */
function bytesOn(
  like: DeviceTarget,
  make: (device: ReturnType<typeof openDevice>) => { sizeBytes: number } | null,
): number {
  using device = openDevice('meta', { like });
  return tidy(() => make(device)?.sizeBytes ?? 0);
}

describe('chunks', () => {
  it('are at most as long as asked, as few as that allows, and whole tiles where there are as many rows', () =>
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 200_000 }), fc.integer({ min: 1, max: 64 }), (N, tiles) => {
        const most = 1024 * tiles;
        const size = evenChunkSize(N, most);
        assert.ok(size >= 1 && size <= Math.max(most, 1));
        assert.equal(Math.ceil(N / size), Math.ceil(N / most));
        assert.ok(size === N || size % 1024 === 0, `${size}`);
      }),
    ));
  it('have by default C rows, and at least 1024', () => {
    assert.equal(defaultChunkSize(100_000, 64), 1024);
    assert.equal(defaultChunkSize(65_536, 4096), 4096);
    assert.equal(defaultChunkSize(65_536, 4097), 5120);
    assert.equal(defaultChunkSize(100, 4096), 100);
    assert.equal(defaultChunkSize(0, 64), 1);
  });
});

describe('scratch memory', () => {
  const sizes = { B: 2, T: 256, H: 4, G: 2, D: 64, dtype: 'bfloat16', hasDocuments: false } as const;

  it('of products', () => {
    assert.equal(
      bytesOn(cpu, (device) => matmulWorkspace(device)),
      3 * 2 * MIB,
    );
    assert.equal(
      bytesOn(cuda, (device) => matmulWorkspace(device)),
      32 * MIB,
    );
  });
  it('of logits: on CUDA rows begin at multiples of 128 bytes', () => {
    assert.equal(
      bytesOn(cpu, (device) => logitsWorkspace(device, 10, 151_937, 'bfloat16')),
      10 * 151_937 * 2,
    );
    assert.equal(
      bytesOn(cuda, (device) => logitsWorkspace(device, 10, 151_937, 'bfloat16')),
      10 * 151_936 * 2 + 10 * 64 * 2,
    );
  });
  it('of sorted ids', () => {
    assert.equal(
      bytesOn(cpu, (device) => sortWorkspace(device, 1000)),
      4000,
    );
    assert.equal(
      bytesOn(cuda, (device) => sortWorkspace(device, 1000)),
      16_000,
    );
  });
  it('of attention on the CPU, as native/ops/attention.h says', () => {
    const [B, T, H, D] = [2, 256, 4, 64];
    const forward = 3 * (128 * 256 + 2 * 256 * D + 2 * 128 * D + 256);
    const backward = 3 * (2 * 128 * 256 + 4 * 256 * D + 2 * 128 * D) + B * H * T;
    for (const [dtype, ofDq] of [
      ['float32', 0],
      ['bfloat16', B * H * T * D],
    ] as const) {
      const bytes = (make: typeof attentionForwardWorkspace): number =>
        bytesOn(cpu, (device) => make(device, { ...sizes, dtype }));
      assert.equal(bytes(attentionForwardWorkspace), 4 * forward);
      assert.equal(bytes(attentionBackwardWorkspace), 4 * (backward + ofDq));
    }
  });
  it('of attention on CUDA: one number a row and head, and what cuDNN takes where it may run', () => {
    const bytes = (like: DeviceTarget, more: object = {}): number[] =>
      [attentionForwardWorkspace, attentionBackwardWorkspace].map((make) =>
        bytesOn(like, (device) => make(device, { ...sizes, ...more })),
      );
    const own = [0, 2 * 4 * 256 * 4];
    assert.deepEqual(bytes(cuda), own);
    for (const not of [{ hasDocuments: true }, { T: 200, B: 1 }, { dtype: 'float32' }, { D: 260 }]) {
      const [forward, backward] = bytes(cudnn, not);
      const { B, T, H } = { ...sizes, ...not };
      assert.deepEqual([forward, backward], [0, B * H * T * 4], JSON.stringify(not));
    }
    // 2 key/value heads, both in one launch: f32 dq, delta, and dk and dv of every query head
    const rows = 2 * 256 * 4;
    assert.deepEqual(bytes(cudnn), [MIB, rows * (4 * 64 + 4 + 4 * 64) + MIB]);
  });
});
