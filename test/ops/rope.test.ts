import { rope, tensor, zeros } from '../../lib/index.ts';
import { assertClose } from '../support/compare.ts';
import { debugDevice, itOnCpu, valuesOf } from '../support/devices.ts';
import { checkGradients } from '../support/gradient_check.ts';
import { ids, itIsPrecise, itRefusesNumbers } from '../support/ops.ts';

const frequencies = () => tensor(Float64Array.of(1, 0.1), { device: debugDevice() });

describe('rope', () => {
  it('has the gradients of central differences over two sequences', () =>
    checkGradients((x) => rope(x, { inverseFrequencies: frequencies() }, 3), [[6, 8]]));
  it('has them over documents, scaled', () =>
    checkGradients(
      (x) => rope(x, { inverseFrequencies: frequencies(), scale: 1.3 }, 5, ids([0, 0, 2, 2, 2])),
      [[5, 4]],
    ));

  it('has them for interleaved pairs, and for a part of each head', () =>
    checkGradients(
      (x) =>
        rope(
          x,
          {
            inverseFrequencies: frequencies(),
            headSize: 6,
            isInterleaved: true,
            growth: { factor: 0.7, positions: 2 },
          },
          3,
        ),
      [[6, 12]],
    ));

  itOnCpu('rotates pairs as written out, and copies the other columns', async () => {
    const [T, D, R, N] = [7, 6, 4, 14];
    const start = Array.from({ length: N }, (_, n) => n - (n % 5));
    for (const isInterleaved of [false, true]) {
      for (const growth of [null, { factor: 0.4, positions: 2 }]) {
        const values = Float64Array.from({ length: N * 2 * D }, (_, i) => Math.sin(i * i));
        const expected = values.slice();
        for (let n = 0; n < N; n++) {
          const p = n - start[n]!;
          const factor = growth ? 1 + 0.4 * Math.log(1 + Math.floor(p / 2)) : 1;
          for (const head of [0, 1]) {
            const at = (column: number) => n * 2 * D + head * D + column;
            for (let d = 0; d < R / 2; d++) {
              const [a, b] = isInterleaved ? [at(2 * d), at(2 * d + 1)] : [at(d), at(d + R / 2)];
              const [angle, first, second] = [p * [1, 0.1][d]!, values[a]!, values[b]!];
              expected[a] = (first * Math.cos(angle) - second * Math.sin(angle)) * 1.3 * factor;
              expected[b] = (second * Math.cos(angle) + first * Math.sin(angle)) * 1.3 * factor;
            }
            for (let column = R; column < D; column++) expected[at(column)]! *= factor;
          }
        }
        const x = tensor(values, { shape: [N, 2 * D], device: debugDevice() });
        const rotation = { inverseFrequencies: frequencies(), scale: 1.3, headSize: D, isInterleaved, growth };
        const y = rope(x, rotation, T, ids(start));
        assertClose(await valuesOf(y), expected, 1e-14, `interleaved ${isInterleaved}`);
        for (const made of [x, y]) made.dispose();
      }
    }
  });

  for (const [T, D] of [
    [1, 2],
    [100, 64],
    [300, 128],
  ] as const) {
    const inverse = Float64Array.from({ length: D / 2 }, (_, d) => 500000 ** ((-2 * d) / D));
    itIsPrecise(`T ${T} D ${D}`, [[2 * T, 3 * D]], (x) =>
      rope(x, { inverseFrequencies: tensor(inverse, { device: debugDevice() }) }, T),
    );
  }

  itRefusesNumbers('rope: headSize', [0, 2, 3, 5, 4.5], (headSize, on) =>
    rope(zeros([4, 60], on), { inverseFrequencies: zeros([2], { ...on, dtype: 'float64' }), headSize }, 4),
  );
  itRefusesNumbers('rope: T', [0, -1, 0.5], (T, on) =>
    rope(zeros([4, 4], on), { inverseFrequencies: zeros([2], { ...on, dtype: 'float64' }) }, T),
  );
  itRefusesNumbers('rope: scale', [Infinity], (scale, on) =>
    rope(zeros([4, 4], on), { inverseFrequencies: zeros([2], { ...on, dtype: 'float64' }), scale }, 4),
  );
});
