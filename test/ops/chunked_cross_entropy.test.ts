// The chunked head and loss: gradients, precision, and chunked equals whole for every chunk size.
import assert from 'node:assert/strict';
import fc from 'fast-check';
import {
  type ChunkedCrossEntropyOptions,
  chunkedCrossEntropy,
  embedding,
  Parameter,
  scale,
  Tape,
  type Tensor,
  tensor,
  tidy,
  zeros,
} from '../../lib/index.ts';
import { debugDevice, leavingNothing, precise, valuesOf, within } from '../support/devices.ts';
import { checkGradients } from '../support/gradient_check.ts';
import { ids, itIsPrecise, itRefusesIds, lossVariants, preciseLossVariants, tokenWeightsFor } from '../support/ops.ts';
import { assertAllClose, assertNoWorse, outputs } from '../support/outputs.ts';
import { integers, normals } from '../support/random.ts';

const N = 23;
const sizeOf = (shape: number[]) => shape.reduce((a, b) => a * b, 1);
/** hidden and weight */
const headShapes = (N: number, V: number, C: number) => [
  [N, C],
  [V, C],
];
const head =
  (targets: Int32Array, options: ChunkedCrossEntropyOptions) =>
  ([hidden, weight]: Tensor[]) =>
    chunkedCrossEntropy(hidden!, weight!, ids(targets), options).loss;
const targets = (V: number) => {
  const targets = integers(N, V, 3);
  targets[4] = -100;
  return targets;
};

describe('the gradients of chunkedCrossEntropy are those of central differences', () => {
  const few = () => ids([1, -100, 4, 0, 6, 2, -100]);
  const shapes = headShapes(7, 7, 3);
  for (const [name, options] of Object.entries(lossVariants)) {
    for (const chunkSize of [1, 3, 12]) {
      it(`${name}, chunks of ${chunkSize}`, () =>
        checkGradients((h, w) => chunkedCrossEntropy(h, w, few(), { ...options, chunkSize }).loss, shapes));
    }
  }
  it('with token weights', () =>
    checkGradients(
      (h, w) => chunkedCrossEntropy(h, w, few(), { tokenWeights: tokenWeightsFor(h, 7), chunkSize: 2 }).loss,
      shapes,
    ));
  it('inside arithmetic, so that the incoming scalar is not 1', () =>
    checkGradients((h, w) => scale(chunkedCrossEntropy(h, w, few(), { chunkSize: 3 }).loss, -2.5), shapes));
  it('of a head tied to the embedding, which adds both uses', () =>
    checkGradients(
      (w) => chunkedCrossEntropy(embedding(w, ids([3, 1, 1, 0])), w, ids([1, 1, 0, 4]), { chunkSize: 3 }).loss,
      [[5, 3]],
    ));
});

describe('chunkedCrossEntropy', () => {
  const shapes = headShapes(N, 33, 8);

  for (const V of [2, 50, 1025, 32000]) {
    const targets = integers(70, V, 5);
    targets[3] = -100;
    for (const options of preciseLossVariants) {
      for (const chunkSize of V === 32000 ? [32] : [1, 32, 70, 100]) {
        itIsPrecise(
          `V ${V} chunks of ${chunkSize} ${JSON.stringify(options)}`,
          headShapes(70, V, 48),
          (h, w) => chunkedCrossEntropy(h, w, ids(targets), { ...options, chunkSize }).loss,
        );
      }
    }
  }

  for (const chunkSize of [1, 3, 7, N - 1, N, N + 5]) {
    for (const V of [2, 33, 257]) {
      it(`equals the whole in f32: chunks of ${chunkSize} of ${N}, V ${V}`, async () => {
        for (const options of [{}, { labelSmoothing: 0.1, zLoss: 1e-3, softcap: 3 }, { divisor: 7 }]) {
          const of = (chunkSize: number) =>
            outputs('float32', headShapes(N, V, 19), head(targets(V), { ...options, chunkSize }));
          assertAllClose(await of(chunkSize), await of(N), 1e-5);
        }
      });
    }
  }
  it('equals the whole for any N, V, C and chunk size', () =>
    fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 40 }),
        fc.integer({ min: 2, max: 41 }),
        fc.integer({ min: 1, max: 20 }),
        fc.integer({ min: 1, max: 50 }),
        async (N, V, C, chunkSize) => {
          const of = (chunkSize: number) =>
            outputs('float32', headShapes(N, V, C), head(integers(N, V, 9), { chunkSize }));
          assertAllClose(await of(chunkSize), await of(N), 2e-5);
        },
      ),
      { numRuns: 40 },
    ));
  for (const chunkSize of [1, 7, N - 1]) {
    it(`is no worse than the whole in bf16: chunks of ${chunkSize}`, () =>
      assertNoWorse(headShapes(N, 131, 64), head(targets(131), { chunkSize }), head(targets(131), { chunkSize: N })));
  }

  it('with all rows ignored has loss 0 and zero gradients', async () => {
    const all = await outputs('float32', shapes, head(new Int32Array(N).fill(-100), { chunkSize: 4 }));
    for (const each of all) assert.ok(each.every((value) => value === 0));
  });

  it('keeps huge logits finite', async () => {
    const all = await outputs('float32', shapes, head(targets(33), { chunkSize: 4 }), 100);
    for (const each of all) assert.ok(each.every(Number.isFinite));
  });

  it('gives per-token losses, lse, log-probabilities, entropy and correctness, also without gradients', async () => {
    const device = debugDevice();
    const [hidden, weight] = shapes.map((shape, i) =>
      tensor(normals(sizeOf(shape), i + 1), { shape, dtype: precise, device }),
    ) as [Tensor, Tensor];
    const ids = targets(33);
    const perToken = ['losses', 'lse', 'logProbability', 'entropy', 'correct'] as const;
    const result = tidy(() =>
      chunkedCrossEntropy(hidden, weight, tensor(ids, { device }), { chunkSize: 5, perToken, labelSmoothing: 0.1 }),
    );
    const [h, w] = [await valuesOf(hidden), await valuesOf(weight)];
    const read = async (name: (typeof perToken)[number]) => await valuesOf(result[name]!);
    const found = Object.fromEntries(
      await Promise.all(perToken.map(async (name) => [name, await read(name)])),
    ) as Record<string, Float64Array>;
    let mean = 0;
    for (let n = 0; n < N; n++) {
      const z = Array.from({ length: 33 }, (_, v) =>
        h.subarray(8 * n, 8 * n + 8).reduce((sum, x, c) => sum + x * w[8 * v + c]!, 0),
      );
      const lse = Math.log(z.reduce((sum, each) => sum + Math.exp(each), 0));
      const y = ids[n]!;
      const expected =
        y < 0
          ? { losses: 0, lse: 0, logProbability: 0, entropy: 0, correct: 0 }
          : {
              losses: lse - 0.9 * z[y]! - (0.1 * z.reduce((a, b) => a + b, 0)) / 33,
              lse,
              logProbability: z[y]! - lse,
              entropy: z.reduce((sum, each) => sum - Math.exp(each - lse) * (each - lse), 0),
              correct: Number(z.indexOf(Math.max(...z)) === y),
            };
      mean += expected.losses / (N - 1);
      for (const [name, value] of Object.entries(expected))
        assert.ok(
          Math.abs(found[name]![n]! - value) < within({ float64: 1e-10, float32: 2e-5 }),
          `${name} of row ${n}`,
        );
    }
    assert.ok(Math.abs((await result.loss.item()) - mean) < within({ float64: 1e-12, float32: 1e-5 }));
    for (const each of [hidden, weight, ...Object.values(result)]) (each as Tensor).dispose();
  });

  it('needs no gradient for a frozen head', () =>
    leavingNothing(debugDevice(), async () => {
      const device = debugDevice();
      const hidden = new Parameter(tensor(normals(N * 8, 1), { shape: [N, 8], dtype: 'float32', device }));
      const weight = new Parameter(tensor(normals(33 * 8, 2), { shape: [33, 8], dtype: 'float32', device }));
      weight.requiresGrad = false;
      const tape = new Tape();
      const loss = tidy(() => {
        const ids = tensor(targets(33), { device });
        return tape.run(() => chunkedCrossEntropy(hidden, weight, ids, { chunkSize: 4 }).loss);
      });
      tape.backward(loss);
      assert.ok(hidden.grad);
      assert.equal(weight.grad, null);
      for (const each of [hidden, weight, loss]) each.dispose();
    }));

  itRefusesIds(
    'cross_entropy',
    4,
    (targets, device) => chunkedCrossEntropy(zeros([2, 2], { device }), zeros([4, 2], { device }), targets).loss,
  );
});
