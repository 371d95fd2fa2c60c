import { linear } from '../../lib/index.ts';
import { checkGradients } from '../support/gradient_check.ts';
import { itIsPrecise } from '../support/ops.ts';

describe('linear', () => {
  it('has the gradients of central differences', () =>
    checkGradients(
      (x, w) => linear(x, w),
      [
        [5, 3],
        [4, 3],
      ],
    ));
  it('has them with a bias', () => checkGradients((x, w, b) => linear(x, w, b), [[5, 3], [4, 3], [4]]));

  for (const [N, I, O] of [
    [1, 1, 1],
    [3, 7, 5],
    [65, 33, 130],
    [257, 512, 384],
  ] as const) {
    itIsPrecise(
      `N ${N} I ${I} O ${O}`,
      [
        [N, I],
        [O, I],
      ],
      (x, w) => linear(x, w),
    );
  }
  itIsPrecise('with a bias', [[65, 33], [130, 33], [130]], (x, w, b) => linear(x, w, b));
});
