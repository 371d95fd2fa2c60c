// The tape and its regions: what is saved, what runs again, what is freed.
import assert from 'node:assert/strict';
import { Region } from '../../lib/autograd/region.ts';
import { isFirstRun, operation } from '../../lib/autograd/tape.ts';
import {
  chunkedCrossEntropy,
  crossEntropy,
  linear,
  miniSequence,
  noGrad,
  openDevice,
  Parameter,
  recompute,
  reshape,
  rmsNorm,
  rows,
  scale,
  softcap,
  swiglu,
  Tape,
  type Tensor,
  tensor,
  tidy,
  valueAndGrad,
  zeros,
} from '../../lib/index.ts';
import { kernels } from '../../lib/runtime/native.ts';
import { empty } from '../../lib/runtime/tensor.ts';
import { assertClose } from '../support/compare.ts';
import { debugDevice, leavingNothing, precise } from '../support/devices.ts';
import { normals } from '../support/random.ts';

const device = () => debugDevice();
const random = (shape: number[], seed: number) =>
  tensor(
    normals(
      shape.reduce((a, b) => a * b, 1),
      seed,
    ),
    { shape, dtype: precise, device: device() },
  );

describe('tape', () => {
  it('adds gradients to .grad until zeroGrad', () =>
    leavingNothing(device(), async () => {
      const x = random([1, 2], 1);
      const w = new Parameter(random([1, 2], 2), { name: 'w' });
      for (let times = 1; times <= 3; times++) {
        const tape = new Tape();
        const y = tape.run(() => linear(x, w));
        tape.backward(y);
        assertClose(
          await w.grad!.toFloat32(),
          (await x.toFloat32()).map((value) => times * value),
          1e-6,
          `pass ${times}`,
        );
        y.dispose();
      }
      w.zeroGrad();
      assert.equal(w.grad, null);
      x.dispose();
      w.dispose();
    }));

  it('starts from a gradient of 1, even if the op after the loss overwrites that gradient with its own', () =>
    leavingNothing(device(), async () => {
      const targets = tensor(Int32Array.of(2, 0, 4), { dtype: 'int32', device: device() });
      const weight = new Parameter(random([5, 4], 1));
      const hidden = random([3, 4], 2);
      const options = { reduction: 'sum' } as const;
      const losses = {
        crossEntropy: () => crossEntropy(linear(hidden, weight), targets, options).loss,
        chunkedCrossEntropy: () => chunkedCrossEntropy(hidden, weight, targets, { ...options, chunkSize: 2 }).loss,
      };
      for (const [name, lossOf] of Object.entries(losses)) {
        for (const fn of [lossOf, () => softcap(lossOf(), 20)]) {
          const gradients: Float32Array[] = [];
          for (const isGiven of [false, true]) {
            const tape = new Tape();
            const output = tape.run(fn);
            const one = isGiven ? tensor([1], { shape: output.shape, dtype: precise, device: device() }) : null;
            tape.backward(output, one);
            gradients.push(await weight.grad!.toFloat32());
            weight.zeroGrad();
            output.dispose();
            one?.dispose();
          }
          assert.deepEqual(gradients[0], gradients[1], `${name}: ${fn === lossOf ? 'loss' : 'capped loss'}`);
        }
      }
      for (const each of [targets, weight, hidden]) each.dispose();
    }));

  it('frees everything when the function throws, before or after ops', () =>
    leavingNothing(device(), () => {
      const x = new Parameter(random([2, 2], 1));
      const tape = new Tape();
      assert.throws(
        () =>
          tape.run(() => {
            linear(x, x);
            throw new Error('on purpose');
          }),
        /on purpose/,
      );
      x.dispose();
    }));

  it('refuses an asynchronous function, a non-scalar and an output that depends on nothing', () => {
    tidy(() => {
      const x = new Parameter(random([2, 2], 1));
      assert.throws(() => new Tape().run(async () => linear(x, x)), /must be synchronous/);
      const tape = new Tape();
      const y = tape.run(() => linear(x, x));
      assert.throws(() => tape.backward(y), /needs a scalar or a gradient of its shape/);
      assert.throws(() => new Tape().backward(zeros([], { device: device() })), /does not depend on a parameter/);
      x.dispose();
    });
  });

  it('records nothing under noGrad', () => {
    tidy(() => {
      const x = new Parameter(random([2, 2], 1));
      const y = new Tape().run(() => noGrad(() => linear(x, x)));
      assert.equal(y.requiresGrad, false);
      x.dispose();
    });
  });

  it('valueAndGrad returns the value and the gradients of its arguments', () =>
    leavingNothing(device(), async () => {
      const [x, w] = [random([1, 3], 1), random([1, 3], 2)];
      const { value, gradients } = valueAndGrad((x, w) => scale(linear(x!, w!), 2))(x, w);
      assertClose(
        await gradients[0]!.toFloat32(),
        (await w.toFloat32()).map((each) => 2 * each),
        1e-6,
        'dx',
      );
      for (const each of [x, w, value, ...gradients]) each.dispose();
    }));
});

/** x, by an op that saves its input and counts how often it computes. */
function counted(x: Tensor, count: { runs: number }): Tensor {
  return operation({
    name: 'counted',
    inputs: { x },
    saved: { x },
    forward() {
      count.runs += 1;
      const y = empty(x.shape, { dtype: x.dtype, device: x.device, category: 'activation' });
      kernels.cast(x, y);
      return { output: y };
    },
    backward: (dy) => ({ x: dy }),
  });
}

/** fn(x) + w, whose backward asks for w's gradient after a region inside has gone through its own. */
function plusAfter(fn: (x: Tensor) => Tensor, x: Tensor, w: Tensor): Tensor {
  const regions: Region[] = [];
  return operation({
    name: 'plusAfter',
    inputs: { x, w },
    saved: { x },
    regions,
    forward() {
      if (isFirstRun()) regions.push(new Region(fn));
      return tidy(() => {
        const inner = regions[0] ? regions[0].run([x]) : noGrad(() => fn(x));
        const y = empty(x.shape, { dtype: x.dtype, device: x.device, category: 'activation' });
        kernels.add(inner, w, y);
        return { output: y };
      });
    },
    backward(dy, { x }, gradients) {
      const [dx = null] = regions[0]!.backward([x], dy, gradients);
      assert.ok(gradients.needs('w'));
      const { gradient, overwrite } = gradients.target('w')!;
      if (overwrite) kernels.cast(dy, gradient);
      else kernels.add_to(dy, gradient);
      return { x: dx };
    },
  });
}

describe('regions', () => {
  it('an op still has its own gradient destinations after a region inside it ran its backward', () =>
    leavingNothing(device(), async () => {
      const [x, w] = [new Parameter(random([6, 2], 1), { name: 'x' }), new Parameter(random([2, 2], 2), { name: 'w' })];
      const dy = random([6, 2], 3);
      const tape = new Tape();
      const y = tape.run(() =>
        recompute(
          (x) =>
            miniSequence((rows) => recompute((rows) => plusAfter((rows) => scale(rows, 3), rows, w), [rows]), x, {
              chunkSize: 2,
            }),
          [x],
        ),
      );
      tape.backward(y, dy);
      const [found, values] = [await w.grad!.toFloat32(), await dy.toFloat32()];
      assertClose(
        found,
        found.map((_, i) => values[i]! + values[4 + i]! + values[8 + i]!),
        1e-6,
        'dw',
      );
      assertClose(
        await x.grad!.toFloat32(),
        values.map((value) => 3 * value),
        1e-6,
        'dx',
      );
      for (const each of [x, w, y, dy]) each.dispose();
    }));

  it('recompute stops before a last op that saves only its inputs', () => {
    tidy(() => {
      const first = { runs: 0 };
      const last = { runs: 0 };
      const x = new Parameter(random([2, 2], 1));
      const tape = new Tape();
      const y = tape.run(() => recompute((x) => counted(counted(x, first), last), [x]));
      assert.deepEqual([first.runs, last.runs], [1, 1]);
      tape.backward(y, random([2, 2], 3));
      assert.deepEqual([first.runs, last.runs], [2, 1]);
      x.dispose();
    });
  });

  it('miniSequence stops there in every chunk', () => {
    tidy(() => {
      const first = { runs: 0 };
      const last = { runs: 0 };
      const x = new Parameter(random([5, 2], 1));
      const tape = new Tape();
      const y = tape.run(() => miniSequence((x) => counted(counted(x, first), last), x, { chunkSize: 2 }));
      tape.backward(y, random([5, 2], 3));
      assert.deepEqual([first.runs, last.runs], [6, 3]);
      x.dispose();
    });
  });

  it('a function that runs other ops the second time is an error', () => {
    tidy(() => {
      let calls = 0;
      const x = new Parameter(random([2, 2], 1));
      const tape = new Tape();
      const y = tape.run(() =>
        recompute(
          (x) => (calls++ === 0 ? swiglu(scale(x, 2), x) : rmsNorm(x, reshape(rows(x, 0, 1), [2]), { eps: 1 })),
          [x],
        ),
      );
      assert.throws(() => tape.backward(y, random([2, 2], 3)), /recompute: rows ran where scale ran/);
      x.dispose();
    });
  });

  it('a function that runs fewer ops the second time is an error', () => {
    tidy(() => {
      let calls = 0;
      const x = new Parameter(random([2, 2], 1));
      const tape = new Tape();
      const y = tape.run(() => recompute((x) => (calls++ === 0 ? swiglu(scale(x, 2), x) : scale(x, 2)), [x]));
      assert.throws(
        () => tape.backward(y, random([2, 2], 3)),
        /recompute: the function ran 1 ops where 2 ran the first/,
      );
      x.dispose();
    });
  });

  for (const [what, after, message] of [
    [
      'goes on with other ops',
      (x: Tensor) => scale(x, 5),
      /^recompute: everything that the backward needs has been recomputed/,
    ],
    ['returns something else', (x: Tensor) => x, /^$/],
    [
      'throws an error of its own',
      () => {
        throw new Error('its own');
      },
      /^its own$/,
    ],
  ] as const) {
    it(`a function that catches the exception that stops its second run, and then ${what}, has the same gradients`, () =>
      leavingNothing(device(), async () => {
        const [first, last] = [{ runs: 0 }, { runs: 0 }];
        const caught: string[] = [];
        const x = new Parameter(random([2, 2], 1));
        const dy = random([2, 2], 3);
        const tape = new Tape();
        const y = tape.run(() =>
          recompute(
            (x) => {
              const made = scale(counted(x, first), 3);
              try {
                return counted(made, last);
              } catch {
                try {
                  return after(made);
                } catch (error) {
                  caught.push((error as Error).message);
                  throw error;
                }
              }
            },
            [x],
          ),
        );
        tape.backward(y, dy);
        assert.deepEqual([first.runs, last.runs], [2, 1]);
        assert.match(caught.join(), message);
        const expected = (await dy.toFloat32()).map((value) => 3 * value);
        assertClose(await x.grad!.toFloat32(), expected, 1e-6, 'dx');
        for (const each of [x, y, dy]) each.dispose();
      }));
  }

  it('miniSequence holds one chunk at a time: its peak is far below that of the plain function', () => {
    const peakOf = (run: (x: Tensor, w: Tensor) => Tensor) => {
      using meta = openDevice('meta', { like: { kind: 'cpu', threads: 2 } });
      const x = new Parameter(empty([16384, 8], { device: meta }));
      const w = new Parameter(empty([512, 8], { device: meta }));
      const tape = new Tape();
      const y = tape.run(() => run(x, w));
      tidy(() => tape.backward(y, empty(y.shape, { device: meta })));
      return meta.memory().peakBytes;
    };
    const block = (x: Tensor, w: Tensor) => scale(scale(linear(x, w), 2), 3);
    const whole = peakOf((x, w) => linear(swiglu(block(x, w), block(x, w)), reshape(w, [8, 512])));
    const chunked = peakOf((x, w) =>
      miniSequence((x) => linear(swiglu(block(x, w), block(x, w)), reshape(w, [8, 512])), x, { chunkSize: 64 }),
    );
    assert.ok(chunked < whole / 8, `${chunked} against ${whole}`);
  });
});
