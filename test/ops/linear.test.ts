import { add, linear, zeros } from '../../lib/index.ts';
import { linearRows } from '../../lib/ops/linear_rows.ts';
import { checkGradients } from '../support/gradient_check.ts';
import { itIsPrecise, itRefusesNumbers } from '../support/ops.ts';

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

describe('linearRows', () => {
  const shapes = [
    [5, 3],
    [7, 3],
  ];
  it('has the gradients of central differences, other rows getting none', () =>
    checkGradients((x, w) => linearRows(x, w, { begin: 2, end: 6 }), shapes));
  it('has them where several parts of a weight are used, in any order', () =>
    checkGradients(
      (x, w) => add(linearRows(x, w, { begin: 4, end: 6 }), linearRows(x, w, { begin: 0, end: 2 })),
      shapes,
    ));
  itIsPrecise(
    'rows 30 to 100 of 130',
    [
      [65, 33],
      [130, 33],
    ],
    (x, w) => linearRows(x, w, { begin: 30, end: 100 }),
  );
  itRefusesNumbers('linearRows: rows.end', [0, 2, 8, 3.5], (end, on) =>
    linearRows(zeros([5, 3], on), zeros([7, 3], on), { begin: 2, end }),
  );
});
