// An op's error belongs to its results: they reject, and what is computed from them; everything else goes on, for all users of a device.
import assert from 'node:assert/strict';
import {
  AdamW,
  add,
  attention,
  cast,
  chunkedCrossEntropy,
  chunkedMlp,
  crossEntropy,
  dropout,
  embedding,
  empty,
  geglu,
  getDevice,
  linear,
  Parameter,
  rmsNorm,
  rope,
  scale,
  softcap,
  swiglu,
  Tape,
  type Tensor,
  tensor,
  tidy,
  zeros,
} from '../../lib/index.ts';
import { kernels } from '../../lib/runtime/native.ts';
import { openTestDevice, testDevice } from '../support/devices.ts';

/** The device that others share. */
const shared = { device: testDevice };
const ids = (...values: number[]) => tensor(Int32Array.from(values), shared);

/** A tensor of this shape whose op has failed. */
function failed(shape: readonly number[], id = 99): Tensor {
  const size = shape.reduce((product, length) => product * length, 1);
  return embedding(zeros([4, size], shared), ids(id)).reshape(shape);
}
const error = /embedding_forward: row 0 holds id 99, outside \[0, 4\)/;

/** Runs `test` with what it makes disposed at the end. */
const inScope = (test: () => Promise<void>) => () => tidy(test);

describe('an op that fails', () => {
  it(
    'is told by its result and by what is computed from it, each time, and by nothing else',
    inScope(async () => {
      const [weight, wrong] = [zeros([4, 4], shared), ids(99)];
      const result = embedding(weight, wrong);
      const dependent = scale(result, 2);
      const other = zeros([2], shared);
      other.write(Float32Array.of(7, 8));
      const product = scale(other, 10);
      await getDevice(testDevice).synchronize();
      for (let time = 0; time < 2; time++) {
        assert.deepEqual([...(await other.data())], [7, 8]);
        assert.deepEqual([...(await product.data())], [70, 80]);
        await assert.rejects(result.data(), error);
        await assert.rejects(result.rows(0, 1).toFloat32(), error);
        await assert.rejects(dependent.data(), error);
      }
      assert.deepEqual([...(await tensor([5, 6], shared).data())], [5, 6]);
      assert.deepEqual([...(await weight.data()), ...(await wrong.data())], [...new Array(16).fill(0), 99]);
    }),
  );

  it(
    'is not forgotten where an op writes other columns of the same rows',
    inScope(async () => {
      const whole = empty([3, 4], { ...shared, dtype: 'float32' });
      kernels.cast(failed([3, 2]), whole.columns(2, 4));
      kernels.cast(zeros([3, 2], shared), whole.columns(0, 2));
      for (let n = 0; n < 3; n++) await assert.rejects(whole.rows(n, n + 1).data(), error);
      kernels.fill(whole, 1);
      kernels.cast(zeros([3, 2], shared), whole.columns(1, 3));
      assert.deepEqual([...(await whole.data())], [1, 0, 0, 1, 1, 0, 0, 1, 1, 0, 0, 1]);
    }),
  );

  it(
    'hands its own error on where several have failed: the first',
    inScope(async () => {
      const [first, second] = [failed([2, 2], 99), failed([2, 2], -7)];
      await assert.rejects(second.data(), /row 0 holds id -7/);
      await assert.rejects(add(second, first).data(), error);
    }),
  );

  it(
    'leaves no trace in memory that another tensor gets',
    inScope(async () => {
      const device = openTestDevice();
      const on = { device };
      const result = embedding(zeros([4, 4], on), tensor(Int32Array.of(99), on));
      const { view } = result;
      await assert.rejects(result.data(), error);
      result.dispose();
      const next = empty([4], on);
      assert.equal(next.view[0], view[0]);
      await next.data();
      device.close();
    }),
  );

  it(
    'is forgotten where its result is overwritten, and there alone',
    inScope(async () => {
      const result = failed([2, 2]);
      result.rows(1, 2).write(Float32Array.of(3, 4));
      assert.deepEqual([...(await result.rows(1, 2).data())], [3, 4]);
      await assert.rejects(result.rows(0, 1).data(), error);
      await assert.rejects(result.data(), error);
      result.write(Float32Array.of(1, 2, 3, 4));
      assert.deepEqual([...(await scale(result, 2).data())], [2, 4, 6, 8]);
    }),
  );

  it(
    'blames no red zone',
    inScope(async () => {
      const device = openTestDevice({ debug: true });
      const on = { device };
      const broken = embedding(zeros([4, 4], on), tensor(Int32Array.of(99), on));
      const between = zeros([2], on);
      const dependent = scale(broken, 2);
      await assert.rejects(broken.data(), error);
      for (const each of [between, dependent, broken]) each.dispose();
      zeros([4], on).dispose();
      await device.synchronize();
      device.close();
    }),
  );
});

// Every op with each of its inputs failed, forward; and backward, where the input wants a gradient.
type Inputs = Record<string, readonly number[]>;
const ops: [string, Inputs, (inputs: Record<string, Tensor>) => Tensor][] = [
  ['add', { a: [2, 4], b: [2, 4] }, ({ a, b }) => add(a!, b!)],
  ['cast', { x: [2, 4] }, ({ x }) => cast(x!, 'bfloat16')],
  ['scale', { x: [2, 4] }, ({ x }) => scale(x!, 3)],
  ['softcap', { x: [2, 4] }, ({ x }) => softcap(x!, 30)],
  ['dropout', { x: [2, 4] }, ({ x }) => dropout(x!, { probability: 0.5, seed: 1, step: 1 }, 1)],
  ['embedding', { weight: [3, 4] }, ({ weight }) => embedding(weight!, ids(0, 2))],
  ['swiglu', { gate: [2, 4], up: [2, 4] }, ({ gate, up }) => swiglu(gate!, up!)],
  ['geglu', { gate: [2, 4], up: [2, 4] }, ({ gate, up }) => geglu(gate!, up!)],
  ['linear', { x: [2, 4], weight: [3, 4], bias: [3] }, ({ x, weight, bias }) => linear(x!, weight!, bias!)],
  ['rmsNorm', { x: [2, 4], weight: [4] }, ({ x, weight }) => rmsNorm(x!, weight!, { eps: 1e-5 })],
  [
    'rope',
    { x: [2, 4] },
    ({ x }) => rope(x!, { inverseFrequencies: tensor(Float64Array.of(1, 0.1), shared), scale: 1 }, 2),
  ],
  ['attention', { q: [2, 4], k: [2, 4], v: [2, 4] }, ({ q, k, v }) => attention(q!, k!, v!, { T: 2, headSize: 4 })],
  [
    'chunkedMlp',
    { x: [2, 4], gate: [6, 4], up: [6, 4], down: [4, 6] },
    ({ x, gate, up, down }) => chunkedMlp(x!, gate!, up!, down!, { chunkSize: 1 }),
  ],
  ['crossEntropy', { logits: [2, 4] }, ({ logits }) => crossEntropy(logits!, ids(0, 1)).loss],
  [
    'chunkedCrossEntropy',
    { hidden: [2, 4], weight: [5, 4] },
    ({ hidden, weight }) => chunkedCrossEntropy(hidden!, weight!, ids(0, 1), { chunkSize: 1 }).loss,
  ],
];

describe('what an op reads and has failed', () => {
  for (const [name, shapes, run] of ops) {
    it(
      `fails ${name} and its gradients; its other inputs stay as they are`,
      inScope(async () => {
        for (const wrong of [...Object.keys(shapes), null]) {
          const inputs = Object.fromEntries(
            Object.entries(shapes).map(([input, shape]) => [
              input,
              new Parameter(input === wrong ? failed(shape).alias() : zeros(shape, shared), { name: input }),
            ]),
          );
          const tape = new Tape();
          const y = tape.run(() => run(inputs));
          tape.backward(y, y.size === 1 ? null : zeros(y.shape, { ...shared, dtype: y.dtype }));
          const read = (tensor: Tensor) => (wrong === null ? tensor.data() : assert.rejects(tensor.data(), error));
          await read(y);
          for (const [input, tensor] of Object.entries(inputs)) {
            if (input === wrong) await assert.rejects(tensor.data(), error);
            else await tensor.data();
            // The gradient of one input may be independent of another, as that of a sum is.
            if (input !== wrong && !/linear|add|dropout/.test(name)) await read(tensor.grad!);
            tensor.dispose();
          }
        }
      }),
    );
  }

  it(
    'fails what is updated from it: parameters and the state of the optimizer, until they are written again',
    inScope(async () => {
      const w = new Parameter(tensor([1, 2, 3, 4], { ...shared, shape: [4, 1] }), { name: 'w' });
      const optimizer = new AdamW([w], { weightDecay: 0 });
      const step = (...tokens: number[]) => {
        const tape = new Tape();
        const loss = tape.run(() => linear(embedding(w, ids(...tokens)), tensor([1], { ...shared, shape: [1, 1] })));
        tape.backward(loss);
        optimizer.step(0.5);
        w.zeroGrad();
      };
      step(0);
      assert.ok(Math.abs((await w.data())[0]! - 0.5) < 1e-6); // the first update is the learning rate's size
      step(99); // its gradient does not depend on the value that has failed, but fails by the same id
      const backward = /embedding_backward: row 0 holds id 99, outside \[0, 4\)/;
      await assert.rejects(w.data(), backward);
      step(0);
      await assert.rejects(w.data(), backward);
      w.write(Float32Array.of(1, 2, 3, 4));
      assert.deepEqual([...(await w.data())], [1, 2, 3, 4]);
      for (const [name, state] of optimizer.state())
        if (/[mv]$/.test(name)) await assert.rejects(state.data(), backward);
      optimizer.dispose();
      w.dispose();
    }),
  );
});
