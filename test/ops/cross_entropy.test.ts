import { crossEntropy, zeros } from '../../lib/index.ts';
import { checkGradients } from '../support/gradient_check.ts';
import {
  ids,
  itIsPrecise,
  itRefusesIds,
  itRefusesNumbers,
  lossVariants,
  preciseLossVariants,
  tokenWeightsFor,
} from '../support/ops.ts';
import { integers } from '../support/random.ts';

describe('crossEntropy', () => {
  const [N, V] = [7, 7];
  const targets = () => ids([1, -100, 4, 0, 6, 2, -100]);

  for (const [name, options] of Object.entries(lossVariants)) {
    it(`has the gradients of central differences: ${name}`, () =>
      checkGradients((x) => crossEntropy(x, targets(), options).loss, [[N, V]]));
  }
  it('has them with token weights, of which those of ignored rows count for nothing', () =>
    checkGradients((x) => crossEntropy(x, targets(), { tokenWeights: tokenWeightsFor(x, N) }).loss, [[N, V]]));

  for (const V of [2, 50, 1025, 32000]) {
    const targets = integers(70, V, 5);
    targets[3] = -100;
    for (const options of preciseLossVariants) {
      itIsPrecise(`V ${V} ${JSON.stringify(options)}`, [[70, V]], (x) => crossEntropy(x, ids(targets), options).loss);
    }
  }

  itRefusesIds('cross_entropy', 4, (targets, device) => crossEntropy(zeros([2, 4], { device }), targets).loss);
  itRefusesNumbers('crossEntropy: ignoreIndex', [0.5, 2 ** 31], (ignoreIndex, on) =>
    crossEntropy(zeros([4, 4], on), zeros([4], { ...on, dtype: 'int32' }), { ignoreIndex }),
  );
});
