// Ids outside their range: an error that names the op and the row, after which the device goes on.
import assert from 'node:assert/strict';
import { chunkedCrossEntropy, crossEntropy, embedding, tensor, tidy, zeros } from '../../lib/index.ts';
import { leavingNothing, openTestDevice } from '../support/devices.ts';

describe('an id out of range', () => {
  for (const id of [4, 9, -7, 2 ** 31 - 1, -(2 ** 31)]) {
    it(`${id} is told, and the device goes on`, async () => {
      using device = openTestDevice();
      const ids = (...values: number[]) => tensor(Int32Array.from(values), { device });
      await leavingNothing(device, async () => {
        using hidden = zeros([2, 2], { device });
        using weight = zeros([4, 2], { device });
        using logits = zeros([2, 4], { device });
        using good = ids(1, 2);
        using bad = ids(1, id);
        const message = (op: string) => new RegExp(`${op}: row 1 .*${id}.*\\[0, 4\\)`);
        for (const [op, run] of [
          ['embedding_forward', (rows: typeof bad) => embedding(weight, rows)],
          ['cross_entropy', (targets: typeof bad) => crossEntropy(logits, targets).loss],
          ['cross_entropy', (targets: typeof bad) => chunkedCrossEntropy(hidden, weight, targets).loss],
        ] as const) {
          using wrong = tidy(() => run(bad));
          await assert.rejects(wrong.data(), message(op));
          using right = tidy(() => run(good));
          assert.ok((await right.toFloat32()).every(Number.isFinite));
        }
      });
    });
  }
});
