import { geglu, swiglu } from '../../lib/index.ts';
import { checkGradients } from '../support/gradient_check.ts';
import { itIsPrecise, repeated } from '../support/ops.ts';

describe('gated activations', () => {
  for (const [name, glu] of Object.entries({ swiglu, geglu })) {
    it(`${name} has the gradients of central differences`, () =>
      checkGradients(
        (gate, up) => glu(gate, up),
        [
          [3, 5],
          [3, 5],
        ],
      ));
    for (const F of [2, 7, 64, 1025, 4096]) {
      itIsPrecise(`${name}, F ${F}`, repeated([9, F], 2), (gate, up) => glu(gate, up));
    }
  }
});
