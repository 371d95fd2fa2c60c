import { rope, tensor, zeros } from '../../lib/index.ts';
import { debugDevice } from '../support/devices.ts';
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

  itRefusesNumbers('rope: T', [0, -1, 0.5], (T, on) =>
    rope(zeros([4, 4], on), { inverseFrequencies: zeros([2], { ...on, dtype: 'float64' }) }, T),
  );
  itRefusesNumbers('rope: scale', [Infinity], (scale, on) =>
    rope(zeros([4, 4], on), { inverseFrequencies: zeros([2], { ...on, dtype: 'float64' }), scale }, 4),
  );
});
