// bf16 gradients: the f32 gradient rounded once, whatever the chunks; what adds to one that is there.
import assert from 'node:assert/strict';
import {
  chunkedCrossEntropy,
  chunkedMlp,
  crossEntropy,
  embedding,
  type GradientDtype,
  linear,
  miniSequence,
  Parameter,
  recompute,
  rmsNorm,
  Tape,
  type Tensor,
  tensor,
  tidy,
  toBfloat16,
  toFloat32,
} from '../../lib/index.ts';
import { debugDevice, leavingNothing, valuesOf } from '../support/devices.ts';
import { integers, normals } from '../support/random.ts';

type Function = (...inputs: Tensor[]) => Tensor;

const device = () => debugDevice();
const sizeOf = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);
const ids = (values: Int32Array) => tensor(values, { device: device() });
/** To the nearest bf16. */
const rounded = (values: Float64Array) => Float64Array.from(toFloat32(toBfloat16(values)));

/** Gradients of bf16 parameters after `passes` backwards. */
async function gradients(
  fn: Function,
  shapes: number[][],
  gradientDtype: GradientDtype,
  { passes = 1, group = [] as number[] } = {},
): Promise<Float64Array[]> {
  return await leavingNothing(device(), async () => {
    const leaves = shapes.map(
      (shape, i) =>
        new Parameter(tensor(normals(sizeOf(shape), 7 * i + 1), { shape, dtype: 'bfloat16', device: device() }), {
          name: `p${i}`,
          gradientDtype,
        }),
    );
    for (const i of group) leaves[i]!.group = group.map((j) => leaves[j]!);
    for (let pass = 0; pass < passes; pass++) {
      const tape = new Tape();
      const output = tape.run(() => fn(...leaves));
      tidy(() => {
        const { shape, dtype, size } = output;
        tape.backward(output, size === 1 ? null : tensor(normals(size, 5), { shape, dtype, device: device() }));
      });
      output.dispose();
    }
    const found: Float64Array[] = [];
    for (const { grad } of leaves) {
      assert.equal(grad!.dtype, gradientDtype);
      found.push(await valuesOf(grad!));
    }
    for (const leaf of leaves) leaf.dispose();
    return found;
  });
}

/** Checks that bf16 gradients are the f32 ones, rounded. */
async function checkRoundedOnce(fn: Function, shapes: number[][], group: number[] = []): Promise<void> {
  const wide = await gradients(fn, shapes, 'float32', { group });
  const narrow = await gradients(fn, shapes, 'bfloat16', { group });
  narrow.forEach((each, i) => {
    assert.deepEqual(each, rounded(wide[i]!), `gradient ${i}`);
  });
}

const mlpShapes = (N: number, C: number, F: number) => [
  [N, C],
  [F, C],
  [F, C],
  [C, F],
];

describe('a bf16 gradient is the f32 gradient rounded once', () => {
  for (const N of [1, 23]) {
    for (const chunkSize of [1, 3, 7, 22, 23, 30]) {
      for (const save of ['input', 'gateUp'] as const) {
        const mlp: Function = (x, g, u, d) => chunkedMlp(x!, g!, u!, d!, { chunkSize, save });
        it(`chunkedMlp, chunks of ${chunkSize} of ${N}, ${save}`, () =>
          checkRoundedOnce(mlp, mlpShapes(N, 64, 96), [1, 2]));
      }
      it(`chunkedMlp with adapters, chunks of ${chunkSize} of ${N}`, () =>
        checkRoundedOnce(
          (x, g, u, d, a, b) =>
            chunkedMlp(x!, g!, u!, d!, { chunkSize, adapters: { up: { a: a!, b: b!, scale: 0.7, op: 1 } } }),
          [...mlpShapes(N, 64, 96), [8, 64], [96, 8]],
        ));
      it(`chunkedCrossEntropy with a low-rank part, chunks of ${chunkSize} of ${N}`, () =>
        checkRoundedOnce(
          (h, w, low, lowWeight) =>
            chunkedCrossEntropy(h!, w!, ids(integers(N, 131, 3)), {
              chunkSize,
              divisor: 7,
              lowRank: { low: low!, weight: lowWeight! },
            }).loss,
          [
            [N, 64],
            [131, 64],
            [N, 4],
            [131, 4],
          ],
        ));
      it(`linear, bias and norm in miniSequence, chunks of ${chunkSize} of ${N}`, () =>
        checkRoundedOnce(
          (x, w, b, n) =>
            miniSequence((rows) => tidy(() => linear(rmsNorm(rows, n!, { eps: 1e-5 }), w!, b!)), x!, { chunkSize }),
          [[N, 64], [96, 64], [96], [64]],
        ));
    }
  }
  it('linear with bias', () => checkRoundedOnce((x, w, b) => linear(x!, w!, b!), [[65, 33], [130, 33], [130]]));
  it('rmsNorm', () => checkRoundedOnce((x, w) => rmsNorm(x!, w!, { eps: 1e-5 }), [[300, 64], [64]]));
  it('embedding, with ids that occur many times', () =>
    checkRoundedOnce((w) => embedding(w!, ids(integers(500, 5, 3))), [[6, 40]]));
  it('crossEntropy', () =>
    checkRoundedOnce((x) => crossEntropy(x!, ids(integers(9, 17, 3)), { divisor: 5 }).loss, [[9, 17]]));
  it('recompute, for a weight that is one of its inputs', () =>
    checkRoundedOnce(
      (x, w) => recompute((x, w) => linear(x, w), [x!, w!]),
      [
        [65, 33],
        [130, 33],
      ],
    ));
});

describe('an existing bf16 gradient', () => {
  const twice = (first: Float64Array) => rounded(rounded(first).map((value, i) => value + first[i]!));
  const cases: Record<string, [Function, number[][]]> = {
    chunkedMlp: [(x, g, u, d) => chunkedMlp(x!, g!, u!, d!, { chunkSize: 7 }), mlpShapes(23, 64, 96)],
    linear: [(x, w, b) => linear(x!, w!, b!), [[65, 33], [130, 33], [130]]],
    'the norm in miniSequence': [
      (x, w) => miniSequence((rows) => rmsNorm(rows, w!, { eps: 1e-5 }), x!, { chunkSize: 7 }),
      [[23, 64], [64]],
    ],
    recompute: [
      (x, w) => recompute((x, w) => linear(x, w), [x!, w!]),
      [
        [65, 33],
        [130, 33],
      ],
    ],
  };
  for (const [name, [fn, shapes]] of Object.entries(cases)) {
    it(`is added to in f32 and rounded again: ${name}`, async () => {
      const wide = await gradients(fn, shapes, 'float32');
      const found = await gradients(fn, shapes, 'bfloat16', { passes: 2 });
      // of x the op gives a bf16 dx, of the weights an f32 sum
      found.slice(1).forEach((each, i) => {
        assert.deepEqual(each, twice(wide[i + 1]!), `gradient ${i + 1}`);
      });
    });
  }

  it('chunkedCrossEntropy adds the gradient that it rounded in the forward', async () => {
    const head: Function = (h, w) =>
      chunkedCrossEntropy(h!, w!, ids(integers(23, 131, 3)), { chunkSize: 7, divisor: 7 }).loss;
    const shapes = [
      [23, 64],
      [131, 64],
    ];
    const once = await gradients(head, shapes, 'bfloat16');
    const found = await gradients(head, shapes, 'bfloat16', { passes: 2 });
    assert.deepEqual(found[1], rounded(once[1]!.map((value) => 2 * value)));
  });

  it("of a tied head: the embedding adds to the head's gradient", async () => {
    const [N, V, C] = [23, 131, 64];
    const tokens = integers(N, 40, 3);
    const targets = integers(N, V, 4);
    const tied: Function = (w) =>
      tidy(() => chunkedCrossEntropy(embedding(w!, ids(tokens)), w!, ids(targets), { chunkSize: 7, divisor: 7 }).loss);
    const [wide] = await gradients(tied, [[V, C]], 'float32');
    const [found] = await gradients(tied, [[V, C]], 'bfloat16');
    const norm = Math.hypot(...wide!);
    const error = Math.hypot(...wide!.map((value, i) => value - found![i]!)) / norm;
    assert.ok(error < 2 ** -8, `relative error ${error}`);
    // rows of no token have the head's gradient alone, rounded once
    assert.deepEqual(found!.subarray(40 * C), rounded(wide!.subarray(40 * C)));
  });
});

it("gradientDtype 'bfloat16' is refused for parameters that are not bf16", () => {
  for (const dtype of ['float32', 'float64'] as const) {
    using x = tensor([1], { dtype, device: 'meta' });
    assert.throws(
      () => new Parameter(x, { name: 'w', gradientDtype: 'bfloat16' }),
      (error: Error) => {
        assert.ok(error instanceof RangeError);
        assert.match(error.message, new RegExp(`Parameter w: gradientDtype 'bfloat16' needs .*these are ${dtype}`));
        return true;
      },
    );
  }
});
