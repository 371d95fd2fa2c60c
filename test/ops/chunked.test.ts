// Chunked equals whole: every chunk size, ragged sizes, f32 and bf16.
import assert from 'node:assert/strict';
import fc from 'fast-check';
import {
  type Activation,
  type ChunkedCrossEntropyOptions,
  chunkedCrossEntropy,
  chunkedMlp,
  type Dtype,
  Tape,
  type Tensor,
  tensor,
  tidy,
} from '../../lib/index.ts';
import { assertClose, relativeError } from '../support/compare.ts';
import { debugDevice, leavingNothing, precise, valuesOf, within } from '../support/devices.ts';
import { integers, normals } from '../support/random.ts';

const sizeOf = (shape: number[]) => shape.reduce((a, b) => a * b, 1);

/** Output and gradients of `fn` for inputs drawn in f64 and rounded to `dtype`. */
async function outputs(
  dtype: Dtype,
  shapes: number[][],
  fn: (inputs: Tensor[]) => Tensor,
  deviation = 0.5,
): Promise<Float64Array[]> {
  return leavingNothing(debugDevice(), async () => {
    const device = debugDevice();
    const leaves = shapes.map((shape, i) => {
      const rounded = normals(sizeOf(shape), 11 * i + 1, deviation);
      return tensor(rounded, { shape, dtype, device }).asParameter();
    });
    const tape = new Tape();
    const output = tape.run(() => fn(leaves));
    tidy(() =>
      tape.backward(output, tensor(normals(output.size, 5), { shape: [...output.shape], dtype: output.dtype, device })),
    );
    const results = [await valuesOf(output)];
    for (const { grad } of leaves) results.push(await valuesOf(grad!));
    for (const each of [output, ...leaves]) each.dispose();
    return results;
  });
}

const names = ['output', 'gradient 1', 'gradient 2', 'gradient 3', 'gradient 4'];

const N = 23;
const mlpShapes = (N: number, C: number, F: number) => [
  [N, C],
  [F, C],
  [F, C],
  [C, F],
];
const mlp =
  (chunkSize: number, save: 'input' | 'gateUp' = 'input', activation: Activation = 'silu') =>
  ([x, gate, up, down]: Tensor[]) =>
    chunkedMlp(x!, gate!, up!, down!, { chunkSize, save, activation });
const head =
  (targets: Int32Array, options: ChunkedCrossEntropyOptions) =>
  ([hidden, weight]: Tensor[]) =>
    chunkedCrossEntropy(hidden!, weight!, tensor(targets, { device: debugDevice() }), options).loss;
const targets = (V: number) => {
  const ids = integers(N, V, 3);
  ids[4] = -100;
  return ids;
};

describe('chunked against whole, f32', () => {
  for (const chunkSize of [1, 3, 7, N - 1, N, N + 5]) {
    it(`chunkedMlp, chunks of ${chunkSize} of ${N}`, async () => {
      const whole = await outputs('float32', mlpShapes(N, 19, 37), mlp(N));
      for (const save of ['input', 'gateUp'] as const) {
        const chunked = await outputs('float32', mlpShapes(N, 19, 37), mlp(chunkSize, save));
        chunked.forEach((each, i) => {
          assertClose(each, whole[i]!, 1e-5, names[i]!);
        });
      }
    });
    for (const V of [2, 33, 257]) {
      it(`chunkedCrossEntropy, chunks of ${chunkSize} of ${N}, V ${V}`, async () => {
        for (const options of [{}, { labelSmoothing: 0.1, zLoss: 1e-3, softcap: 3 }, { divisor: 7 }]) {
          const shapes = [
            [N, 19],
            [V, 19],
          ];
          const whole = await outputs('float32', shapes, head(targets(V), { ...options, chunkSize: N }));
          const chunked = await outputs('float32', shapes, head(targets(V), { ...options, chunkSize }));
          chunked.forEach((each, i) => {
            assertClose(each, whole[i]!, 1e-5, names[i]!);
          });
        }
      });
    }
  }

  it('any N, V, C, F and chunk size', () =>
    fc.assert(
      fc.asyncProperty(
        fc.record({
          N: fc.integer({ min: 1, max: 40 }),
          C: fc.integer({ min: 1, max: 20 }),
          F: fc.integer({ min: 1, max: 40 }),
          chunkSize: fc.integer({ min: 1, max: 50 }),
        }),
        async ({ N, C, F, chunkSize }) => {
          const whole = await outputs('float32', mlpShapes(N, C, F), mlp(N));
          const chunked = await outputs('float32', mlpShapes(N, C, F), mlp(chunkSize));
          chunked.forEach((each, i) => {
            assertClose(each, whole[i]!, 1e-5, names[i]!);
          });
          const shapes = [
            [N, C],
            [F + 1, C],
          ];
          const ids = integers(N, F + 1, 9);
          const wholeLoss = await outputs('float32', shapes, head(ids, { chunkSize: N }));
          const chunkedLoss = await outputs('float32', shapes, head(ids, { chunkSize }));
          chunkedLoss.forEach((each, i) => {
            assertClose(each, wholeLoss[i]!, 2e-5, names[i]!);
          });
        },
      ),
      { numRuns: 40 },
    ));
});

describe('chunked in bf16 is no worse than whole in bf16', () => {
  const worst = (errors: number[]) => Math.max(...errors);
  /** Errors of bf16 against f64 on the same bf16-rounded inputs. */
  async function errors(
    shapes: number[][],
    fn: (inputs: Tensor[]) => Tensor,
    truth: (inputs: Tensor[]) => Tensor,
  ): Promise<number[]> {
    const expected = await outputs('float32', shapes, truth);
    const found = await outputs('bfloat16', shapes, fn);
    return found.map((each, i) => relativeError(each, expected[i]!));
  }

  for (const chunkSize of [1, 7, N - 1]) {
    it(`chunkedMlp, chunks of ${chunkSize}`, async () => {
      const shapes = mlpShapes(N, 64, 96);
      const whole = await errors(shapes, mlp(N), mlp(N));
      const chunked = await errors(shapes, mlp(chunkSize), mlp(N));
      chunked.forEach((error, i) => {
        assert.ok(error <= 1.1 * whole[i]!, `${names[i]}: ${error} against ${whole[i]}`);
      });
      assert.ok(worst(whole) < 2e-2, `bf16 itself is off by ${worst(whole)}`);
    });
    it(`chunkedCrossEntropy, chunks of ${chunkSize}`, async () => {
      const shapes = [
        [N, 64],
        [131, 64],
      ];
      const whole = await errors(shapes, head(targets(131), { chunkSize: N }), head(targets(131), { chunkSize: N }));
      const chunked = await errors(shapes, head(targets(131), { chunkSize }), head(targets(131), { chunkSize: N }));
      chunked.forEach((error, i) => {
        assert.ok(error <= 1.1 * whole[i]! + 1e-7, `${names[i]}: ${error} against ${whole[i]}`);
      });
      assert.ok(worst(whole) < 2e-2, `bf16 itself is off by ${worst(whole)}`);
    });
  }
});

describe('chunkedCrossEntropy', () => {
  const shapes = [
    [N, 8],
    [33, 8],
  ];

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
      const hidden = tensor(normals(N * 8, 1), { shape: [N, 8], dtype: 'float32', device }).asParameter();
      const weight = tensor(normals(33 * 8, 2), { shape: [33, 8], dtype: 'float32', device });
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
});
