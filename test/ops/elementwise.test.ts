import { add, cast, scale } from '../../lib/index.ts';
import { checkGradients } from '../support/gradient_check.ts';
import { itIsPrecise, repeated } from '../support/ops.ts';

describe('elementwise ops have the gradients of central differences', () => {
  it('add, also of a tensor and itself', () =>
    checkGradients(
      (a, b) => add(add(a, b), a),
      [
        [3, 2],
        [3, 2],
      ],
    ));
  it('scale', () => checkGradients((x) => scale(x, -1.5), [[3, 2]]));
  it('cast', () => checkGradients((x) => cast(x, x.dtype === 'float64' ? 'float64' : 'float32'), [[3, 2]]));

  for (const C of [2, 7, 64, 1025, 4096]) {
    itIsPrecise(`add and scale, C ${C}`, repeated([9, C], 2), (a, b) => scale(add(a, b), 1.5));
  }
});
