// The output and the gradients of one call, for comparing ways to compute the same.
import { type Dtype, Parameter, Tape, type Tensor, tensor, tidy } from '../../lib/index.ts';
import { assertClose, relativeError } from './compare.ts';
import { debugDevice, leavingNothing, valuesOf } from './devices.ts';
import { normals } from './random.ts';

const sizeOf = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);
const nameOf = (i: number) => (i === 0 ? 'output' : `gradient ${i}`);

/** Output and gradients of `fn` for inputs drawn in f64 and rounded to `dtype`. */
export async function outputs(
  dtype: Dtype,
  shapes: number[][],
  fn: (inputs: Tensor[]) => Tensor,
  deviation = 0.5,
): Promise<Float64Array[]> {
  const device = debugDevice();
  return leavingNothing(device, async () => {
    const leaves = shapes.map(
      (shape, i) => new Parameter(tensor(normals(sizeOf(shape), 11 * i + 1, deviation), { shape, dtype, device })),
    );
    const tape = new Tape();
    const output = tape.run(() => fn(leaves));
    const { shape, dtype: outputDtype, size } = output;
    tidy(() => tape.backward(output, tensor(normals(size, 5), { shape: [...shape], dtype: outputDtype, device })));
    const results = [await valuesOf(output)];
    for (const { grad } of leaves) results.push(await valuesOf(grad!));
    for (const each of [output, ...leaves]) each.dispose();
    return results;
  });
}

/** Fails unless all of these are within `tolerance` of the others. */
export function assertAllClose(found: Float64Array[], expected: Float64Array[], tolerance: number): void {
  for (const [i, each] of found.entries()) assertClose(each, expected[i]!, tolerance, nameOf(i));
}

/** Fails unless in bf16 `chunked` has no larger errors than `whole`, both against `whole` in f32 on the same bf16 inputs. */
export async function assertNoWorse(
  shapes: number[][],
  chunked: (inputs: Tensor[]) => Tensor,
  whole: (inputs: Tensor[]) => Tensor,
): Promise<void> {
  const expected = await outputs('float32', shapes, whole);
  const errorsOf = async (fn: (inputs: Tensor[]) => Tensor) =>
    (await outputs('bfloat16', shapes, fn)).map((each, i) => relativeError(each, expected[i]!));
  const [ofWhole, ofChunked] = [await errorsOf(whole), await errorsOf(chunked)];
  for (const [i, error] of ofChunked.entries()) {
    const most = 1.1 * ofWhole[i]! + 1e-7;
    if (!(error <= most)) throw new Error(`${nameOf(i)}: ${error} against ${ofWhole[i]}`);
  }
  const worst = Math.max(...ofWhole);
  if (!(worst < 2e-2)) throw new Error(`bf16 itself is off by ${worst}`);
}
