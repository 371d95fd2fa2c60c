// The chunked MLP: gradients, precision, and chunked equals whole for every chunk size.
import assert from 'node:assert/strict';
import fc from 'fast-check';
import {
  type Activation,
  add,
  chunkedMlp,
  linear,
  Parameter,
  scale,
  Tape,
  type Tensor,
  tensor,
  tidy,
  zeros,
} from '../../lib/index.ts';
import { assertClose } from '../support/compare.ts';
import { debugDevice, leavingNothing, openTestDevice, valuesOf } from '../support/devices.ts';
import { checkGradients } from '../support/gradient_check.ts';
import { itIsPrecise, itRefusesNumbers, mlpShapes } from '../support/ops.ts';
import { assertAllClose, assertNoWorse, outputs } from '../support/outputs.ts';
import { normals } from '../support/random.ts';

const N = 23;
const mlp =
  (chunkSize: number, save: 'input' | 'gateUp' = 'input', activation: Activation = 'silu') =>
  ([x, gate, up, down]: Tensor[]) =>
    chunkedMlp(x!, gate!, up!, down!, { chunkSize, save, activation });

describe('chunkedMlp', () => {
  for (const chunkSize of [1, 2, 5, 9]) {
    for (const save of ['input', 'gateUp'] as const) {
      it(`has the gradients of central differences: chunks of ${chunkSize}, saving ${save}`, () =>
        checkGradients((...inputs) => mlp(chunkSize, save)(inputs), mlpShapes(5, 3, 4)));
    }
  }
  it('has them with geluTanh', () =>
    checkGradients((...inputs) => mlp(2, 'input', 'geluTanh')(inputs), mlpShapes(5, 3, 4)));

  for (const save of ['input', 'gateUp'] as const) {
    it(`has them where one weight holds gate and up, with adapters, saving ${save}`, () =>
      checkGradients(
        (x, gateUp, down, a, b, downA, downB) =>
          chunkedMlp(x!, gateUp!, null, down!, {
            chunkSize: 2,
            save,
            adapters: { gate: { a: a!, b: b!, scale: 0.7, op: 1 }, down: { a: downA!, b: downB!, scale: 1.3, op: 2 } },
            dropout: { probability: 0.3, seed: 1, step: 2 },
          }),
        [
          [5, 3],
          [8, 3],
          [3, 4],
          [2, 3],
          [8, 2],
          [1, 4],
          [3, 1],
        ],
      ));
  }

  it('computes the same with one weight for gate and up as with two', async () => {
    const [x, gate, up, down] = mlpShapes(N, 19, 37) as [number[], number[], number[], number[]];
    const device = debugDevice();
    const values = [x, gate, up, down].map((shape, i) => normals(shape[0]! * shape[1]!, 100 * i));
    const on = { device, dtype: 'float32' } as const;
    const made = [x, gate, up, down].map((shape, i) => tensor(values[i]!, { ...on, shape }));
    const gateUp = tensor([...values[1]!, ...values[2]!], { ...on, shape: [2 * 37, 19] });
    const [plain, fused] = [
      chunkedMlp(made[0]!, made[1]!, made[2]!, made[3]!, { chunkSize: 7 }),
      chunkedMlp(made[0]!, gateUp, null, made[3]!, { chunkSize: 7 }),
    ];
    assertClose(await valuesOf(fused), await valuesOf(plain), 1e-6, 'output'); // one product instead of two
    for (const each of [...made, gateUp, plain, fused]) each.dispose();
  });

  for (const chunkSize of [1, 64, 200, 300]) {
    for (const save of ['input', 'gateUp'] as const) {
      itIsPrecise(`chunks of ${chunkSize} ${save}`, mlpShapes(200, 64, 176), (...inputs) =>
        mlp(chunkSize, save)(inputs),
      );
    }
  }

  for (const chunkSize of [1, 3, 7, N - 1, N, N + 5]) {
    it(`equals the whole in f32: chunks of ${chunkSize} of ${N}`, async () => {
      const whole = await outputs('float32', mlpShapes(N, 19, 37), mlp(N));
      for (const save of ['input', 'gateUp'] as const) {
        assertAllClose(await outputs('float32', mlpShapes(N, 19, 37), mlp(chunkSize, save)), whole, 1e-5);
      }
    });
  }
  it('equals the whole for any N, C, F and chunk size', () =>
    fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 40 }),
        fc.integer({ min: 1, max: 20 }),
        fc.integer({ min: 1, max: 40 }),
        fc.integer({ min: 1, max: 50 }),
        async (N, C, F, chunkSize) => {
          const whole = await outputs('float32', mlpShapes(N, C, F), mlp(N));
          assertAllClose(await outputs('float32', mlpShapes(N, C, F), mlp(chunkSize)), whole, 1e-5);
        },
      ),
      { numRuns: 40 },
    ));
  for (const chunkSize of [1, 7, N - 1]) {
    it(`is no worse than the whole in bf16: chunks of ${chunkSize}`, () =>
      assertNoWorse(mlpShapes(N, 64, 96), mlp(chunkSize), mlp(N)));
  }

  for (const other of ['gate', 'up'] as const) {
    it(`adds to the gradient that ${other} has, and assigns its neighbour's that is new`, async () => {
      const [x, gate, up, down] = await gradientsWithUse(other, false);
      const grouped = await gradientsWithUse(other, true);
      for (const [i, expected] of [x, gate, up, down].entries())
        assertClose(grouped[i]!, expected!, 1e-6, `gradient ${i}`);
    });
  }

  for (const save of ['input', 'gateUp'] as const) {
    it(`writes the input's gradient over an input that nothing else uses, bit for bit the same: saving ${save}`, async () => {
      const inPlace = await gradientsOfInput(save, false);
      const apart = await gradientsOfInput(save, true);
      assert.deepEqual(inPlace.gradients, apart.gradients);
      assert.equal(apart.peakBytes - inPlace.peakBytes, roundUp(N * 64 * 4));
    });
  }

  itRefusesNumbers('adapters: dropout probability', [2], (probability, on) =>
    chunkedMlp(zeros([4, 4], on), zeros([4, 4], on), zeros([4, 4], on), zeros([4, 4], on), {
      dropout: { probability, seed: 0, step: 0 },
    }),
  );
});

const roundUp = (bytes: number) => Math.ceil(bytes / 512) * 512;

/** Gradients of the MLP of 2·x and the peak of its backward, where 2·x is held by the caller as well or not. */
function gradientsOfInput(save: 'input' | 'gateUp', isHeld: boolean) {
  const device = openTestDevice();
  return leavingNothing(device, async () => {
    const leaves = mlpShapes(N, 64, 96).map(
      (shape, i) => new Parameter(tensor(Float32Array.from(normals(shape[0]! * shape[1]!, i + 1)), { shape, device })),
    );
    const [x, gate, up, down] = leaves as [Parameter, Parameter, Parameter, Parameter];
    const held: Tensor[] = [];
    const tape = new Tape();
    const y = tape.run(() => {
      const doubled = scale(x, 2);
      if (isHeld) held.push(doubled.alias().keep());
      return chunkedMlp(doubled, gate, up, down, { chunkSize: 7, save });
    });
    const before = device.memory().liveBytes;
    device.arena.resetPeak();
    tidy(() => tape.backward(y, tensor(Float32Array.from(normals(N * 64, 9)), { shape: [N, 64], device })));
    const peakBytes = device.memory().peakBytes - before;
    const gradients: Float64Array[] = [];
    for (const { grad } of leaves) gradients.push(await valuesOf(grad!));
    for (const each of held) {
      assert.deepEqual(
        await valuesOf(each),
        (await valuesOf(x)).map((value) => 2 * value),
      );
    }
    for (const each of [y, ...held, ...leaves]) each.dispose();
    return { gradients, peakBytes };
  });
}

/** Gradients where gate or up has one from another op already, in memory of its own or beside the other's. */
function gradientsWithUse(other: 'gate' | 'up', grouped: boolean): Promise<Float64Array[]> {
  const device = debugDevice();
  return leavingNothing(device, async () => {
    const leaves = mlpShapes(5, 4, 4).map(
      (shape, i) => new Parameter(tensor(Float32Array.from(normals(shape[0]! * shape[1]!, i + 1)), { shape, device })),
    );
    const [x, gate, up, down] = leaves as [Parameter, Parameter, Parameter, Parameter];
    if (grouped) for (const member of [gate, up]) member.group = [gate, up];
    const tape = new Tape();
    // The product is recorded last, so that its gradient comes first.
    const y = tape.run(() => {
      const h = chunkedMlp(x, gate, up, down, { chunkSize: 2 });
      return add(h, linear(h, other === 'gate' ? gate : up));
    });
    tidy(() => tape.backward(y, tensor(Float32Array.from(normals(20, 9)), { shape: [5, 4], device })));
    const found: Float64Array[] = [];
    for (const { grad } of leaves) found.push(await valuesOf(grad!));
    for (const each of [y, ...leaves]) each.dispose();
    return found;
  });
}
