// Gradients against central differences, in f64.
import assert from 'node:assert/strict';
import { noGrad, Tape, type Tensor, tensor, tidy } from '../../lib/index.ts';
import { relativeError } from './compare.ts';
import { debugDevice, leavingNothing } from './devices.ts';
import { normals } from './random.ts';

const STEP = 1e-5;

/**
 * Checks the gradients of `fn` by every element of its inputs, for a random gradient of its output.
 * @param shapes of the inputs, which are normal numbers times `deviation`
 */
export async function checkGradients(
  fn: (...inputs: Tensor[]) => Tensor,
  shapes: number[][],
  { tolerance = 1e-8, deviation = 1, seed = 1 } = {},
): Promise<void> {
  const device = debugDevice();
  const values = shapes.map((shape, i) =>
    normals(
      shape.reduce((a, b) => a * b, 1),
      seed + 100 * i,
      deviation,
    ),
  );
  const make = (data: Float64Array, i: number) => tensor(data, { shape: shapes[i]!, device });
  await leavingNothing(device, async () => {
    const leaves = values.map((data, i) => make(data, i).asParameter(`input ${i}`));
    const tape = new Tape();
    const output = tape.run(() => fn(...leaves));
    const cotangent = normals(output.size, seed + 999);
    tidy(() => tape.backward(output, tensor(cotangent, { shape: [...output.shape], device })));
    output.dispose();

    const evaluate = async (data: Float64Array[]): Promise<number> => {
      const result = noGrad(() => tidy(() => fn(...data.map(make))));
      const outputs = (await result.data()) as Float64Array;
      result.dispose();
      return outputs.reduce((sum, value, i) => sum + value * cotangent[i]!, 0);
    };
    for (const [i, leaf] of leaves.entries()) {
      assert.ok(leaf.grad, `input ${i} got no gradient`);
      const expected = new Float64Array(leaf.size);
      for (let element = 0; element < leaf.size; element++) {
        const moved = (by: number) =>
          values.map((data, j) => (j === i ? data.with(element, data[element]! + by) : data));
        expected[element] = ((await evaluate(moved(STEP))) - (await evaluate(moved(-STEP)))) / (2 * STEP);
      }
      const error = relativeError((await leaf.grad.data()) as Float64Array, expected);
      assert.ok(
        error <= tolerance,
        `gradient of input ${i}: relative error ${error.toExponential(2)} is over ${tolerance}`,
      );
    }
    for (const leaf of leaves) leaf.dispose();
  });
}
