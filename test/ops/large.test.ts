// Offsets past 2^31 elements, on a GPU with the memory for it: the last rows of a large op are those of a small one on the same rows.
import assert from 'node:assert/strict';
import {
  add,
  attention,
  crossEntropy,
  type Device,
  type Dtype,
  dropout,
  embedding,
  empty,
  geglu,
  linear,
  Parameter,
  rmsNorm,
  rope,
  softcap,
  swiglu,
  Tape,
  type Tensor,
  tensor,
  tidy,
} from '../../lib/index.ts';
import { kernels } from '../../lib/runtime/native.ts';
import { relativeError } from '../support/compare.ts';
import { itOnCuda, openTestDevice } from '../support/devices.ts';
import { integers } from '../support/random.ts';

const LIMIT = 1e-2; // rows at another offset hold other random numbers, which would give an error above 1

interface Case {
  /** Columns of the inputs. */
  cols: number[];
  /** Rows come in sequences of T, of which the last is computed again alone. @default 64 */
  T?: number;
  /** Rows of the output, or the sum of their losses, from the rows of the inputs from `firstRow` on. */
  fn(inputs: Tensor[], firstRow: number): Tensor;
}

function random(shape: readonly number[], device: Device, seed: number, dtype: Dtype = 'bfloat16'): Tensor {
  const result = empty(shape, { dtype, device });
  kernels.random_normal(result, 0, 1, seed, 0, 0);
  return result;
}

/** A copy of the last rows. */
function last(whole: Tensor, T: number): Tensor {
  const [N = 0, ...rest] = whole.shape;
  using constant = whole.alias();
  using rows = constant.rows(N - T, N);
  const copy = empty([T, ...rest], { dtype: whole.dtype, device: whole.device });
  kernels.cast(rows, copy);
  return copy;
}

/** The last rows of the output and of the gradients of the inputs, and those of the gradient of the output. Disposes the inputs. */
async function run(inputs: Tensor[], T: number, fn: (inputs: Tensor[]) => Tensor, dyOf: (y: Tensor) => Tensor) {
  const parameters = inputs.map((input) => new Parameter(input));
  const tape = new Tape();
  using y = tape.run(() => tidy(() => fn(parameters)));
  const read = async (whole: Tensor) => {
    using rows = last(whole, T);
    return await rows.toFloat32();
  };
  const results = y.size === 1 ? [] : [await read(y)];
  using dy = dyOf(y);
  const lastDy = y.size === 1 ? dy.alias() : last(dy, T);
  tape.backward(y, dy);
  for (const { grad } of parameters) results.push(await read(grad!));
  for (const parameter of parameters) parameter.dispose();
  return { results, lastDy };
}

async function check({ cols, T = 64, fn }: Case): Promise<void> {
  using device = openTestDevice();
  const N = T * Math.ceil(2 ** 31 / Math.max(...cols) / T + 1);
  const inputs = cols.map((count, i) => random([N, count], device, i));
  const rows = inputs.map((input) => last(input, T));
  const large = await run(
    inputs,
    T,
    (all) => fn(all, 0),
    (y) => random(y.shape, device, 99, y.dtype),
  );
  const small = await run(
    rows,
    T,
    (all) => fn(all, N - T),
    () => large.lastDy,
  );
  small.lastDy.dispose();
  for (const [i, found] of large.results.entries()) {
    const error = relativeError(found, small.results[i]!);
    assert.ok(error <= LIMIT, `result ${i}: relative error ${error}`);
  }
}

const [C, F, V] = [4096, 14336, 128256];
const D = 128;
const cases: Record<string, Case> = {
  'N·V: crossEntropy': {
    cols: [V],
    fn: ([logits], firstRow) => {
      const targets = integers(2 ** 15, V, 3).subarray(firstRow, firstRow + logits!.shape[0]!);
      return crossEntropy(logits!, tensor(targets, { device: logits!.device }), { reduction: 'sum' }).loss;
    },
  },
  'T·F: swiglu': { cols: [F, F], fn: ([gate, up]) => swiglu(gate!, up!) },
  'T·F: geglu': { cols: [F, F], fn: ([gate, up]) => geglu(gate!, up!) },
  'T·F: linear': { cols: [F], fn: ([x]) => linear(x!, random([64, F], x!.device, 9)) },
  'N·C: add': { cols: [C, C], fn: ([a, b]) => add(a!, b!) },
  'N·C: softcap': { cols: [C], fn: ([x]) => softcap(x!, 2) },
  'N·C: rmsNorm': { cols: [C], fn: ([x]) => rmsNorm(x!, random([C], x!.device, 9), { eps: 1e-5 }) },
  'N·C: rope': {
    cols: [C],
    T: 256,
    fn: ([x]) => {
      const frequencies = Float64Array.from({ length: D / 2 }, (_, d) => 500000 ** ((-2 * d) / D));
      return rope(x!, { inverseFrequencies: tensor(frequencies, { device: x!.device }) }, 256);
    },
  },
  'N·C: attention': {
    cols: [C, D, D],
    T: 2048,
    fn: ([q, k, v]) => attention(q!, k!, v!, { T: 2048, headSize: D }),
  },
};

describe('offsets past 2^31', () => {
  for (const [name, each] of Object.entries(cases)) itOnCuda(name, () => check(each));

  itOnCuda('N·C: dropout', async () => {
    using device = openTestDevice();
    const N = 2 ** 31 / C + 64;
    using ones = empty([N, C], { dtype: 'bfloat16', device });
    kernels.fill(ones, 1);
    const mask = { probability: 0.5, seed: 1, step: 1 };
    using y = dropout(ones, mask, 1);
    const [first, end] = [y.rows(0, 64), y.rows(N - 64, N)];
    const [a, b] = [await first.toFloat32(), await end.toFloat32()];
    for (const each of [first, end]) each.dispose();
    const share = b.reduce((sum, value) => sum + (value === 0 ? 1 : 0), 0) / b.length;
    assert.ok(Math.abs(share - 0.5) < 0.01, `${share} dropped`);
    assert.notDeepEqual(a, b);
  });

  itOnCuda('V·C: embedding', async () => {
    using device = openTestDevice();
    const rows = 2 ** 31 / C + 64;
    using table = random([rows, C], device, 1);
    using expected = last(table, 3);
    using found = embedding(table, tensor(Int32Array.of(rows - 3, rows - 2, rows - 1), { device }));
    assert.deepEqual(await found.data(), await expected.data());
  });
});
