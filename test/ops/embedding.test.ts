import { embedding, zeros } from '../../lib/index.ts';
import { checkGradients } from '../support/gradient_check.ts';
import { ids, itIsPrecise, itRefusesIds } from '../support/ops.ts';
import { integers } from '../support/random.ts';

describe('embedding', () => {
  it('has the gradients of central differences, with repeated ids', () =>
    checkGradients((w) => embedding(w, ids([2, 0, 2, 4])), [[5, 3]]));

  for (const C of [2, 7, 64, 1025, 4096]) {
    itIsPrecise(`C ${C}`, [[50, C]], (w) => embedding(w, ids(integers(300, 50, 3))));
  }

  itRefusesIds('embedding_forward', 4, (rows, device) => embedding(zeros([4, 2], { device }), rows));
});
