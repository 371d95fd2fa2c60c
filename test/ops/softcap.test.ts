import { softcap } from '../../lib/index.ts';
import { checkGradients } from '../support/gradient_check.ts';
import { itIsPrecise } from '../support/ops.ts';

describe('softcap', () => {
  it('has the gradients of central differences', () => checkGradients((x) => softcap(x, 0.7), [[3, 5]]));
  itIsPrecise('cap 0.7', [[9, 130]], (x) => softcap(x, 0.7));
});
