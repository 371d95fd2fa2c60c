import { attention, zeros } from '../../lib/index.ts';
import { checkGradients } from '../support/gradient_check.ts';
import { ids, itIsPrecise, itRefusesNumbers } from '../support/ops.ts';

const qkv = (N: number, H: number, G: number, D: number) => [
  [N, H * D],
  [N, G * D],
  [N, G * D],
];

describe('attention', () => {
  it('has the gradients of central differences: grouped heads, two sequences', () =>
    checkGradients((q, k, v) => attention(q, k, v, { T: 5, headSize: 4 }), qkv(10, 4, 2, 4)));
  it('has them with a window and soft-cap', () =>
    checkGradients(
      (q, k, v) => attention(q, k, v, { T: 7, headSize: 4, window: 3, softcap: 2, scale: 0.7 }),
      qkv(7, 3, 1, 4),
    ));
  it('has them over documents', () =>
    checkGradients(
      (q, k, v) => attention(q, k, v, { T: 6, headSize: 2, documentStart: ids([0, 0, 2, 2, 2, 5]) }),
      qkv(6, 2, 2, 2),
    ));

  // The last four: shapes that cuDNN takes where it is there.
  for (const [B, T, H, G, D] of [
    [1, 1, 1, 1, 16],
    [2, 63, 4, 2, 64],
    [1, 65, 4, 1, 80],
    [1, 70, 2, 2, 96],
    [1, 300, 3, 3, 128],
    [1, 97, 2, 1, 256],
    [1, 128, 4, 1, 128],
    [2, 256, 4, 2, 64],
    [1, 384, 4, 4, 80],
    [1, 384, 4, 2, 256],
  ] as const) {
    const shapes = qkv(B * T, H, G, D);
    const where = `B ${B} T ${T} H ${H} G ${G} D ${D}`;
    const starts = Array.from({ length: B * T }, (_, n) => n - ((n % T) % 29));
    for (const options of [{}, { window: 40 }, { window: 100, softcap: 5 }, { softcap: 5 }]) {
      itIsPrecise(`${where} ${JSON.stringify(options)}`, shapes, (q, k, v) =>
        attention(q, k, v, { T, headSize: D, ...options }),
      );
    }
    itIsPrecise(`${where} over documents`, shapes, (q, k, v) =>
      attention(q, k, v, { T, headSize: D, documentStart: ids(starts) }),
    );
  }

  itRefusesNumbers('attention: window', [-1, 1.5, 2 ** 53], (window, on) =>
    attention(zeros([4, 4], on), zeros([4, 4], on), zeros([4, 4], on), { T: 4, headSize: 4, window }),
  );
  itRefusesNumbers('attention: T', [0, 2.5], (T, on) =>
    attention(zeros([4, 4], on), zeros([4, 4], on), zeros([4, 4], on), { T, headSize: 4 }),
  );
});
