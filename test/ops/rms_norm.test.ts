import { rmsNorm, zeros } from '../../lib/index.ts';
import { checkGradients } from '../support/gradient_check.ts';
import { itIsPrecise, itRefusesNumbers } from '../support/ops.ts';

describe('rmsNorm', () => {
  it('has the gradients of central differences', () =>
    checkGradients((x, w) => rmsNorm(x, w, { eps: 1e-5 }), [[5, 7], [7]]));
  it('has them for heads', () => checkGradients((x, w) => rmsNorm(x, w, { eps: 1e-5 }), [[5, 6], [3]]));
  it('has them with 1 + weight', () =>
    checkGradients((x, w) => rmsNorm(x, w, { eps: 1e-5, weightOffset: 1 }), [[2, 3], [3]]));

  for (const C of [2, 7, 64, 1025, 4096]) {
    itIsPrecise(`C ${C}`, [[37, C], [C]], (x, w) => rmsNorm(x, w, { eps: 1e-5, weightOffset: 1 }));
  }
  itIsPrecise('heads', [[37, 6 * 80], [80]], (x, w) => rmsNorm(x, w, { eps: 1e-5 }));

  itRefusesNumbers('rmsNorm: weightOffset', [Infinity], (weightOffset, on) =>
    rmsNorm(zeros([4, 4], on), zeros([4], on), { eps: 1, weightOffset }),
  );
});
