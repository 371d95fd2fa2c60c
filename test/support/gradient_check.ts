// Outputs and gradients against the truth: in f64 central differences, in f32 and bf16 what f64 gives on the CPU.
import assert from 'node:assert/strict';
import {
  type Dtype,
  noGrad,
  Parameter,
  Tape,
  type Tensor,
  tensor,
  tidy,
  toBfloat16,
  toFloat32,
} from '../../lib/index.ts';
import { relativeError } from './compare.ts';
import { debugDevice, hasFloat64, leavingNothing, onDevice, valuesOf } from './devices.ts';
import { normals } from './random.ts';

const STEP = 1e-5;

type Function = (...inputs: Tensor[]) => Tensor;

const sizeOf = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);

const inputsOf = (shapes: number[][], seed: number, deviation: number) =>
  shapes.map((shape, i) => normals(sizeOf(shape), seed + 100 * i, deviation));

/** The output and the gradient of every input, for a random gradient of the output. */
async function outputAndGradients(
  fn: Function,
  shapes: number[][],
  values: Float64Array[],
  dtype: Dtype,
  seed: number,
): Promise<Float64Array[]> {
  const device = debugDevice();
  return await leavingNothing(device, async () => {
    const leaves = values.map(
      (data, i) => new Parameter(tensor(data, { shape: shapes[i]!, dtype, device }), { name: `input ${i}` }),
    );
    const tape = new Tape();
    const output = tape.run(() => fn(...leaves));
    const cotangent = rounded(normals(output.size, seed + 999));
    tidy(() => tape.backward(output, tensor(cotangent, { shape: [...output.shape], dtype: output.dtype, device })));
    const results = [await valuesOf(output)];
    for (const [i, leaf] of leaves.entries()) {
      assert.ok(leaf.grad, `input ${i} got no gradient`);
      results.push(await valuesOf(leaf.grad));
    }
    for (const each of [output, ...leaves]) each.dispose();
    return results;
  });
}

/** To the nearest bf16, which f32 and f64 hold exactly. */
const rounded = (values: Float64Array) => Float64Array.from(toFloat32(toBfloat16(values)));

const name = (i: number) => (i === 0 ? 'the output' : `the gradient of input ${i - 1}`);

/**
 * Checks output and gradients of `fn` in f32 and bf16 on the test device against f64 on the CPU, for the same inputs.
 * `fn` makes its own tensors on debugDevice().
 */
export async function checkPrecision(
  fn: Function,
  shapes: number[][],
  { deviation = 1, seed = 1, limits = {} as { float32?: number; bfloat16?: number } } = {},
): Promise<void> {
  const values = inputsOf(shapes, seed, deviation).map(rounded);
  const expected = await onDevice('cpu', () => outputAndGradients(fn, shapes, values, 'float64', seed));
  for (const [dtype, limit] of Object.entries({ float32: 1e-5, bfloat16: 3e-2, ...limits })) {
    const found = await outputAndGradients(fn, shapes, values, dtype as Dtype, seed);
    for (const [i, each] of found.entries()) {
      const error = relativeError(each, expected[i]!);
      assert.ok(error <= limit, `${dtype}: ${name(i)}: relative error ${error.toExponential(2)} is over ${limit}`);
    }
  }
}

/**
 * Checks the gradients of `fn` in f64 by every element of its inputs, for a random gradient of its output; then checkPrecision().
 * @param shapes of the inputs, which are normal numbers times `deviation`
 */
export async function checkGradients(
  fn: Function,
  shapes: number[][],
  { tolerance = 1e-8, deviation = 1, seed = 1, limits = {} as { float32?: number; bfloat16?: number } } = {},
): Promise<void> {
  if (hasFloat64) await checkDifferences(fn, shapes, { tolerance, deviation, seed });
  await checkPrecision(fn, shapes, { deviation, seed, limits });
}

async function checkDifferences(
  fn: Function,
  shapes: number[][],
  { tolerance, deviation, seed }: { tolerance: number; deviation: number; seed: number },
): Promise<void> {
  const device = debugDevice();
  const values = inputsOf(shapes, seed, deviation);
  const [output, ...gradients] = await outputAndGradients(fn, shapes, values, 'float64', seed);
  const cotangent = rounded(normals(output!.length, seed + 999));
  await leavingNothing(device, async () => {
    const make = (data: Float64Array, i: number) => tensor(data, { shape: shapes[i]!, device });
    const evaluate = async (data: Float64Array[]): Promise<number> => {
      const result = noGrad(() => tidy(() => fn(...data.map(make))));
      const outputs = await valuesOf(result);
      result.dispose();
      return outputs.reduce((sum, value, i) => sum + value * cotangent[i]!, 0);
    };
    for (const [i, gradient] of gradients.entries()) {
      const expected = new Float64Array(gradient.length);
      for (let element = 0; element < expected.length; element++) {
        const moved = (by: number) =>
          values.map((data, j) => (j === i ? data.with(element, data[element]! + by) : data));
        expected[element] = ((await evaluate(moved(STEP))) - (await evaluate(moved(-STEP)))) / (2 * STEP);
      }
      const error = relativeError(gradient, expected);
      assert.ok(error <= tolerance, `${name(i + 1)}: relative error ${error.toExponential(2)} is over ${tolerance}`);
    }
  });
}
