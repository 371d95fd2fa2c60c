// Weights in 4 bits inside ops: the values and gradients are those of the dequantised weights, bit for bit on the CPU.
import assert from 'node:assert/strict';
import {
  chunkedMlp,
  dequantizeNf4,
  empty,
  linear,
  Parameter,
  QuantizedWeight,
  quantizeWeight,
  reshape,
  Tape,
  type Tensor,
  tensor,
  tidy,
  type Weight,
} from '../../lib/index.ts';
import { adaptedLinear } from '../../lib/ops/low_rank.ts';
import { kernels } from '../../lib/runtime/native.ts';
import { emptyGroup } from '../../lib/runtime/tensor.ts';
import { debugDevice } from '../support/devices.ts';
import { normals } from '../support/random.ts';

const [N, C, F, r] = [37, 40, 72, 3];
const DTYPES = ['float32', 'bfloat16'] as const;
type TestDtype = (typeof DTYPES)[number];

const made = (shape: number[], seed: number, dtype: TestDtype): Tensor =>
  tensor(normals(shape[0]! * shape[1]!, seed, 0.3), { shape, dtype, device: debugDevice() });

/** The weights of `shapes` in 4 bits, and frozen parameters of what they stand for. */
function both(shapes: readonly (readonly [number, number])[], dtype: TestDtype) {
  const quantized = shapes.map((shape, i) => quantizeWeight(made([...shape], 100 + i, dtype)));
  // Side by side, as the parameters of a model are: gate and up are one product.
  const plain = emptyGroup(shapes, { dtype, device: debugDevice() });
  for (const [i, { tensors, shape }] of quantized.entries()) {
    using values = dequantizeNf4(tensors, shape, dtype);
    kernels.cast(values, plain[i]!);
  }
  return { quantized, plain };
}

/** Output and gradients of what `fn` computes from x and trained parameters. */
async function run(fn: (x: Tensor, trained: Parameter[]) => Tensor, trainedShapes: number[][], dtype: TestDtype) {
  const parameters = [[N, C], ...trainedShapes].map((shape, i) => new Parameter(made(shape, 7 + i, dtype)));
  const [x, ...trained] = parameters as [Parameter, ...Parameter[]];
  const tape = new Tape();
  const y = tape.run(() => fn(x, trained));
  const dy = made([...y.shape] as number[], 50, dtype);
  tape.backward(y, dy);
  const results = [y, ...parameters.map(({ grad }) => grad!)];
  const found = await Promise.all(results.map((each) => each.data()));
  for (const each of [y, dy, ...parameters]) each.dispose();
  return found;
}

async function isSame(
  shapes: readonly (readonly [number, number])[],
  trained: number[][],
  dtype: TestDtype,
  fn: (x: Tensor, weights: Weight[], trained: Parameter[]) => Tensor,
): Promise<void> {
  const { quantized, plain } = tidy(() => both(shapes, dtype));
  const found = await run((x, more) => fn(x, quantized, more), trained, dtype);
  const expected = await run((x, more) => fn(x, plain, more), trained, dtype);
  for (const each of [...quantized, ...plain]) each.dispose();
  assert.equal(found.length, 2 + trained.length);
  assert.ok(found[0]!.some((value) => value !== 0));
  assert.deepEqual(found, expected);
}

describe('weights in 4 bits', () => {
  for (const dtype of DTYPES) {
    it(`linear: ${dtype}`, async () => {
      await isSame([[F, C]], [], dtype, (x, [weight]) => linear(x, weight!));
      await isSame([[F, C]], [[1, F]], dtype, (x, [weight], [bias]) => linear(x, weight!, reshape(bias!, [F])));
    });

    it(`linear with an adapter: ${dtype}`, async () => {
      const trained = [
        [r, C],
        [F, r],
      ];
      await isSame([[F, C]], trained, dtype, (x, [weight], [a, b]) =>
        adaptedLinear(
          x,
          weight!,
          null,
          { a: a!, b: b!, scale: 0.7, op: 3 },
          {
            probability: 0.2,
            seed: 1,
            step: 2,
          },
        ),
      );
    });

    for (const [chunkSize, save] of [
      [8, 'input'],
      [N, 'gateUp'],
    ] as const) {
      it(`chunkedMlp, chunks of ${chunkSize}, save ${save}: ${dtype}`, async () => {
        const trained = [
          [r, C],
          [F, r],
          [r, F],
          [C, r],
        ];
        const shapes = [
          [F, C],
          [F, C],
          [C, F],
        ] as const;
        await isSame(shapes, trained, dtype, (x, [gate, up, down], [ga, gb, da, db]) =>
          chunkedMlp(x, gate!, up!, down!, {
            chunkSize,
            save,
            adapters: { gate: { a: ga!, b: gb!, scale: 2, op: 1 }, down: { a: da!, b: db!, scale: 0.5, op: 2 } },
          }),
        );
      });
    }
  }

  it('come back once for each use, not once for each chunk, and leave no memory in use', async () => {
    const device = debugDevice();
    const before = device.memory().liveBytes;
    const weights = tidy(() =>
      both(
        [
          [F, C],
          [F, C],
          [C, F],
        ],
        'bfloat16',
      ).quantized.map((weight) => weight),
    );
    let count = 0;
    for (const weight of weights) {
      weight.dequantizeInto = (y) => {
        count += 1;
        QuantizedWeight.prototype.dequantizeInto.call(weight, y);
      };
    }
    const [gate, up, down] = weights as [QuantizedWeight, QuantizedWeight, QuantizedWeight];
    const x = new Parameter(tidy(() => made([N, C], 1, 'bfloat16')));
    const tape = new Tape();
    const y = tape.run(() => chunkedMlp(x, gate, up, down, { chunkSize: 8 }));
    assert.equal(count, 3);
    const dy = made([N, C], 2, 'bfloat16');
    tape.backward(y, dy);
    assert.equal(count, 6);
    for (const each of [x, y, dy, ...weights]) each.dispose();
    assert.equal(device.memory().liveBytes, before);
  });

  it('are refused where shape, dtype or device do not fit', () => {
    tidy(() => {
      const device = debugDevice();
      using weight = quantizeWeight(made([F, C], 1, 'float32'));
      assert.throws(
        () => linear(empty([N, F], { device }), weight),
        /linear: x \(37,72\) and weight \(72,40\) disagree/,
      );
      assert.throws(
        () => linear(empty([N, C], { device, dtype: 'bfloat16' }), weight),
        /x is bfloat16, weight float32/,
      );
      assert.throws(() => linear(empty([N, C], { device: 'meta' }), weight), /linear: weight is on .*, x on/);
      assert.throws(() => weight.quantize(empty([C, F], { device })), /x must be \(72,40\), got \(40,72\)/);
      assert.throws(() => weight.dequantizeInto(empty([F], { device })), /y must be \(72,40\), got \(72\)/);
      assert.throws(
        () => quantizeWeight(empty([4, 4], { device, dtype: 'int32' })),
        /quantizeWeight: x must be float32 or bfloat16 or float64, got int32/,
      );
    });
  });
});
