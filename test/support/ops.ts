// What the tests of ops share: inputs on the debug device, one line for a case, the numbers that options refuse.
import assert from 'node:assert/strict';
import { type CrossEntropyOptions, type Device, openDevice, type Tensor, tensor, tidy } from '../../lib/index.ts';
import { debugDevice } from './devices.ts';
import { checkPrecision } from './gradient_check.ts';

/** Token ids on the debug device. */
export const ids = (values: ArrayLike<number>): Tensor => tensor(Int32Array.from(values), { device: debugDevice() });

export const repeated = (shape: number[], count: number): number[][] => Array.from({ length: count }, () => shape);

/** x, gate, up and down of an MLP. */
export const mlpShapes = (N: number, C: number, F: number): number[][] => [
  [N, C],
  [F, C],
  [F, C],
  [C, F],
];

/** Tests that `fn` in f32 and bf16 is what it is in f64 on the CPU: at ragged and larger shapes, which reach every path of the kernels. */
export function itIsPrecise(name: string, shapes: number[][], fn: (...inputs: Tensor[]) => Tensor): void {
  it(`is precise: ${name}`, () => checkPrecision(fn, shapes));
}

/**
 * Tests that an option refuses what is no number, and the values `wrong`: by name, on `meta` as on the CPU, so that no plan takes what the
 * run refuses.
 * @param what op and option, as the message begins
 */
export function itRefusesNumbers(
  what: string,
  wrong: unknown[],
  call: (value: never, on: { device: Device }) => unknown,
): void {
  it(`refuses numbers that are none: ${what}`, () => {
    for (const name of ['cpu', 'meta'] as const) {
      using device = openDevice(name);
      for (const value of [...wrong, Number.NaN, -Infinity, '1', true, {}]) {
        tidy(() =>
          assert.throws(() => call(value as never, { device }), new RegExp(`RangeError: ${what} must be`), `${value}`),
        );
      }
    }
  });
}

/** Tests that an id out of range is told with its row, and that the device goes on. */
export function itRefusesIds(kernel: string, V: number, run: (ids: Tensor, device: Device) => Tensor): void {
  for (const id of [V, V + 5, -7, 2 ** 31 - 1, -(2 ** 31)]) {
    it(`tells of id ${id}, and goes on`, async () => {
      const device = debugDevice();
      const outputOf = async (values: number[]) => {
        using output = tidy(() => run(tensor(Int32Array.from(values), { device }), device));
        return await output.toFloat32();
      };
      await assert.rejects(outputOf([1, id]), new RegExp(`${kernel}: row 1 .*${id}.*\\[0, ${V}\\)`));
      assert.ok((await outputOf([1, 2])).every(Number.isFinite));
    });
  }
}

/** Options of the loss, small values for f64. */
export const lossVariants: Record<string, CrossEntropyOptions> = {
  plain: {},
  'label smoothing': { labelSmoothing: 0.1 },
  'z-loss': { zLoss: 0.01 },
  'soft-cap': { softcap: 2 },
  sum: { reduction: 'sum' },
  divisor: { divisor: 3.5 },
  everything: { labelSmoothing: 0.2, zLoss: 0.02, softcap: 3, divisor: 4 },
};

/** The same for `itIsPrecise`. */
export const preciseLossVariants: CrossEntropyOptions[] = [
  {},
  { labelSmoothing: 0.1, zLoss: 1e-3 },
  { softcap: 5 },
  { divisor: 17, softcap: 10, labelSmoothing: 0.2, zLoss: 1e-3 },
];

/** Weights of N tokens, all different, in the loss's dtype. */
export const tokenWeightsFor = ({ dtype }: Tensor, N: number): Tensor =>
  tensor(
    Array.from({ length: N }, (_, n) => 0.5 + n / 4),
    { dtype: dtype === 'float64' ? 'float64' : 'float32', device: debugDevice() },
  );
