// Regions: what is computed again in the backward gives the gradients of what was saved.
import {
  add,
  attention,
  chunkedCrossEntropy,
  linear,
  miniSequence,
  recompute,
  rmsNorm,
  swiglu,
} from '../../lib/index.ts';
import { checkGradients } from '../support/gradient_check.ts';
import { ids } from '../support/ops.ts';

describe('recompute has the gradients of central differences', () => {
  it('of a layer', () =>
    checkGradients(
      (x, w, g) => recompute((x) => add(x, swiglu(linear(rmsNorm(x, g, { eps: 1e-5 }), w), x)), [x]),
      [[4, 3], [3, 3], [3]],
    ));
  it('keeping attention', () =>
    checkGradients(
      (x, w) =>
        recompute((x) => linear(attention(x, x, linear(x, w), { T: 4, headSize: 2 }), w), [x], { keep: ['attention'] }),
      [
        [4, 4],
        [4, 4],
      ],
    ));
  it('inside recompute', () =>
    checkGradients(
      (x, w) =>
        recompute(
          (x) =>
            linear(
              recompute((x) => swiglu(linear(x, w), x), [x]),
              w,
            ),
          [x],
        ),
      [
        [4, 3],
        [3, 3],
      ],
    ));
  it('around miniSequence', () =>
    checkGradients(
      (x, w) =>
        recompute(
          (x) =>
            linear(
              miniSequence((x) => swiglu(linear(x, w), x), x, { chunkSize: 2 }),
              w,
            ),
          [x],
        ),
      [
        [5, 3],
        [3, 3],
      ],
    ));
  it('around chunkedCrossEntropy', () =>
    checkGradients(
      (x, w) => recompute((x) => chunkedCrossEntropy(linear(x, w), w, ids([1, 0, 2]), { chunkSize: 2 }).loss, [x]),
      [
        [3, 3],
        [3, 3],
      ],
    ));
});
