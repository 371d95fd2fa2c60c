import { add, linear, miniSequence, recompute, reshape, rows, scale } from '../../lib/index.ts';
import { checkGradients } from '../support/gradient_check.ts';

describe('rows and reshape', () => {
  it('have the gradients of central differences, of values and of parameters, of the same tensor twice', () =>
    checkGradients(
      (x, w) => linear(add(scale(rows(x, 0, 2), 3), rows(x, 1, 3)), reshape(rows(w, 1, 3), [4, 3])),
      [
        [3, 3],
        [4, 6],
      ],
    ));
  it('have them inside regions', () =>
    checkGradients(
      (x, w) =>
        miniSequence(
          (x) => recompute((x) => linear(reshape(scale(x, 2), [x.shape[0]!, 6]), reshape(w, [4, 6])), [x]),
          reshape(x, [5, 6]),
          { chunkSize: 2 },
        ),
      [
        [5, 3, 2],
        [2, 12],
      ],
    ));
});
