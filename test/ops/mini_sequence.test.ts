// Any function of single tokens in chunks: gradients, and the example's wrapped block against the plain one.
import assert from 'node:assert/strict';
import { chunkedTwoGateMlp, makeTwoGates, type TwoGates, twoGateMlp } from '../../examples/custom_block.ts';
import {
  empty,
  linear,
  miniSequence,
  openDevice,
  Parameter,
  swiglu,
  Tape,
  type Tensor,
  tensor,
  tidy,
} from '../../lib/index.ts';
import { assertClose } from '../support/compare.ts';
import { openTestDevice } from '../support/devices.ts';
import { checkGradients } from '../support/gradient_check.ts';
import { normals } from '../support/random.ts';

describe('miniSequence', () => {
  for (const chunkSize of [1, 2, 5, 8]) {
    it(`has the gradients of central differences: chunks of ${chunkSize}`, () =>
      checkGradients(
        (x, g, u, d) => miniSequence((x) => linear(swiglu(linear(x, g), linear(x, u)), d), x, { chunkSize }),
        [
          [5, 3],
          [4, 3],
          [4, 3],
          [2, 4],
        ],
      ));
  }
});

const [N, C, F] = [50, 12, 40];

describe("miniSequence on a user's block", () => {
  for (const chunkSize of [1, 7, 49, 50, 60]) {
    it(`gives the output and the gradients of the plain block, in chunks of ${chunkSize}`, async () => {
      using device = openTestDevice();
      const weights = makeTwoGates(device, C, F);
      const run = async (block: (x: Tensor, weights: TwoGates) => Tensor) => {
        using x = new Parameter(tensor(Float32Array.from(normals(N * C, 1)), { shape: [N, C], device }));
        const tape = new Tape();
        using y = tape.run(() => block(x, weights));
        tidy(() => tape.backward(y, tensor(Float32Array.from(normals(N * C, 2)), { shape: [N, C], device })));
        const results = [await y.toFloat32(), await x.grad!.toFloat32()];
        for (const weight of Object.values(weights)) {
          results.push(await weight.grad!.toFloat32());
          weight.zeroGrad();
        }
        return results;
      };
      const plain = await run(twoGateMlp);
      const wrapped = await run((x, weights) => chunkedTwoGateMlp(x, weights, chunkSize));
      for (const [i, found] of wrapped.entries()) assertClose(found, plain[i]!, 1e-5, `result ${i}`);
      for (const weight of Object.values(weights)) weight.dispose();
      assert.equal(device.memory().liveBytes, 0);
    });
  }

  it("has one chunk's intermediates", () => {
    const peak = (block: (x: Tensor, weights: TwoGates) => Tensor) => {
      using device = openDevice('meta');
      const make = (shape: number[]) => new Parameter(empty(shape, { device, category: 'parameter' }));
      const [rows, C, F] = [8192, 64, 512];
      const weights = { siluGate: make([F, C]), geluGate: make([F, C]), up: make([F, C]), down: make([C, F]) };
      const x = make([rows, C]);
      const dy = make([rows, C]);
      const before = device.memory().liveBytes;
      const tape = new Tape();
      const y = tape.run(() => block(x, weights));
      tidy(() => tape.backward(y, dy));
      for (const tensor of [y, x, dy, ...Object.values(weights)]) tensor.dispose();
      return device.memory().peakBytes - before;
    };
    const whole = peak(twoGateMlp);
    const wrapped = peak((x, weights) => chunkedTwoGateMlp(x, weights, 256));
    const perRow = 4 * 512 * 4; // gates, up and a product, f32
    assert.ok(whole - wrapped > 0.9 * perRow * (8192 - 256), `${whole} and ${wrapped}`);
  });
});
