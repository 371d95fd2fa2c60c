import assert from 'node:assert/strict';
import { dropout, tensor, zeros } from '../../lib/index.ts';
import { openTestDevice } from '../support/devices.ts';
import { itIsPrecise, itRefusesNumbers } from '../support/ops.ts';

describe('dropout', () => {
  it('drops the given share, keeps the mean, and gives the same mask again', async () => {
    using device = openTestDevice();
    const size = 200_000;
    using x = tensor(new Float32Array(size).fill(1), { shape: [400, 500], device });
    const of = async (probability: number, op: number, step: number) => {
      using y = dropout(x, { probability, seed: 1, step }, op);
      return await y.toFloat32();
    };
    const y = await of(0.3, 1, 1);
    const dropped = y.filter((value) => value === 0).length;
    assert.ok(Math.abs(dropped - 0.3 * size) < 5 * Math.sqrt(0.21 * size), `${dropped} of ${size}`);
    assert.ok(y.every((value) => value === 0 || Math.abs(value - 1 / 0.7) < 1e-6));
    assert.deepEqual(await of(0.3, 1, 1), y);
    for (const other of [await of(0.3, 2, 1), await of(0.3, 1, 2)]) {
      const both = other.filter((value, i) => value === 0 && y[i] === 0).length;
      assert.ok(Math.abs(both - 0.09 * size) < 5 * Math.sqrt(0.09 * 0.91 * size), `${both}`);
    }
    assert.deepEqual(await of(0, 1, 1), new Float32Array(size).fill(1));
  });

  itIsPrecise('probability 0.3', [[9, 130]], (x) => dropout(x, { probability: 0.3, seed: 5, step: 7 }, 9));

  itRefusesNumbers('dropout: dropout probability', [1, -0.1], (probability, on) =>
    dropout(zeros([4, 4], on), { probability, seed: 0, step: 0 }, 0),
  );
  itRefusesNumbers('dropout: dropout seed', [0.5, 2 ** 53], (seed, on) =>
    dropout(zeros([4, 4], on), { probability: 0.5, seed, step: 0 }, 0),
  );
  itRefusesNumbers('dropout: dropout step', [-1, 0.5, 2 ** 32], (step, on) =>
    dropout(zeros([4, 4], on), { probability: 0.5, seed: 0, step }, 0),
  );
  itRefusesNumbers('dropout: op', [-1, 0.5, 2 ** 32], (op, on) =>
    dropout(zeros([4, 4], on), { probability: 0.5, seed: 0, step: 0 }, op),
  );
});
