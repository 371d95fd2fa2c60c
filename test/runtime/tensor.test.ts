// Tensors are checked once, when they are made: what JavaScript does to shapes, dtypes and arrays afterwards changes nothing.
import assert from 'node:assert/strict';
import { empty, linear, openDevice, Parameter, Tape, tensor, tidy, zeros } from '../../lib/index.ts';
import { kernels } from '../../lib/runtime/native.ts';

describe('a tensor', () => {
  it('keeps the shape that it was made with', async () => {
    const shape = [4];
    const made = [zeros(shape), empty(shape), tensor([1, 2, 3, 4], { shape }), zeros([2, 2]).reshape(shape)];
    shape[0] = 2 ** 30;
    for (const x of made) {
      assert.deepEqual([x.shape, x.size, x.sizeBytes], [[4], 4, 16]);
      assert.throws(() => x.write(new Float32Array(2 ** 20)), /takes 16 bytes, got 4194304/);
      assert.equal((await x.data()).length, 4);
    }
    for (const x of made) x.dispose();
  });

  it('has a shape, a dtype and a size that nobody can change', async () => {
    using x = zeros([2, 4]);
    using view = x.rows(0, 1);
    for (const each of [x, view]) {
      const { shape, size } = each;
      for (const name of ['shape', 'dtype', 'size', 'sizeBytes']) assert.equal(Reflect.set(each, name, 3), false);
      assert.equal(Reflect.set(each.shape, 0, 2 ** 30), false);
      assert.throws(() => (each.shape as number[]).push(2), TypeError);
      assert.deepEqual([each.shape, each.dtype, each.size, each.sizeBytes], [shape, 'float32', size, 4 * size]);
    }
    assert.deepEqual(await x.data(), new Float32Array(8));
  });

  it('has a dtype and a category that are their own names', () => {
    for (const name of ['constructor', 'toString', '__proto__', 'hasOwnProperty', '', null, 3]) {
      assert.throws(() => zeros([2], { dtype: name as never }), {
        name: 'TypeError',
        message: `tensor: dtype '${name}' is none of float32, bfloat16, float64, int32, uint8`,
      });
      assert.throws(() => zeros([2], { category: name as never }), /TypeError: tensor: category '.*' is none of/);
    }
  });

  it('has views at whole rows and of whole shapes alone', () => {
    using x = tensor([1, 2, 3, 4], { shape: [4, 1] });
    const bounds = [
      [0.5, 2.5],
      [0, 2.5],
      [Number.NaN, 2],
      [0, Number.NaN],
      [-1, 2],
      [3, 2],
      [0, 5],
      [0, Infinity],
      ['0', 2],
    ];
    for (const [begin, end] of bounds) {
      assert.throws(() => x.rows(begin as number, end as number), {
        name: 'RangeError',
        message: `rows: [${begin}, ${end}) is not within the 4 rows of tensor float32(4,1)`,
      });
    }
    for (const shape of [[-1, -4], [0.5, 8], [4, Number.NaN], [2, 2, 1, 1, 1], ['4'], [2 ** 53, 0], [3], [null, 4]]) {
      assert.throws(() => x.reshape(shape as number[]), RangeError);
    }
    for (const shape of [4, '4', null, { length: 1, 0: 4 }]) {
      assert.throws(() => x.reshape(shape as never), /TypeError: reshape: shape must be an array of lengths/);
      assert.throws(() => zeros(shape as never), /TypeError: tensor: shape must be an array of lengths/);
    }
    for (const shape of [[1.5], [-1], [Number.NaN], [Infinity], [1, 1, 1, 1, 1], ['2'], [2 ** 52, 4]]) {
      assert.throws(() => zeros(shape as number[]), RangeError, `${shape}`);
    }
  });

  it('has views of columns for kernels, which the host cannot read or write', async () => {
    using x = tensor([1, 2, 3, 4, 5, 6], { shape: [2, 3] });
    using view = x.columns(1, 3);
    using same = view.alias();
    using copy = zeros([2, 2]);
    kernels.cast(same, copy);
    assert.deepEqual(
      [view.shape, [...(await copy.data())]],
      [
        [2, 2],
        [2, 3, 5, 6],
      ],
    );
    kernels.fill(view, 0);
    assert.deepEqual([...(await x.data())], [1, 0, 0, 4, 0, 0]);
    for (const use of [
      () => view.write(new Float32Array(4)),
      () => view.rows(0, 1),
      () => view.columns(0, 1),
      () => view.reshape([4]),
    ]) {
      assert.throws(use, /: tensor float32\(2,2\) is a view of some columns of rows of 3; cast it into a tensor first/);
    }
    await assert.rejects(view.data(), /data: tensor float32\(2,2\) is a view of some columns/);
    for (const [begin, end] of [
      [0.5, 2],
      [2, 1],
      [0, 4],
      [-1, 2],
    ] as const) {
      assert.throws(
        () => x.columns(begin, end),
        /RangeError: columns: .* is not within the 3 columns of tensor float32\(2,3\)/,
      );
    }
    using vector = zeros([3]);
    assert.throws(() => vector.columns(0, 1), /columns: needs a tensor \(N,C\), got tensor float32\(3\)/);
    x.requiresGrad = true;
    assert.throws(() => x.columns(0, 1), /columns\(0, 1\): gradients flow to/);
  });

  it('takes values that its dtype holds, and refuses those that it would have to guess', async () => {
    using x = zeros([4]);
    x.write(Float32Array.of(1, 2, 3, 4));
    x.write(new Uint8Array(Float32Array.of(5, 6, 7, 8).buffer));
    for (const data of [
      Int32Array.of(1, 2, 3, 4),
      new Float64Array(2),
      new Uint16Array(8),
      [1, 2, 3, 4],
      'text',
      null,
    ]) {
      assert.throws(
        () => x.write(data as never),
        /TypeError: write: .* takes a Float32Array or bytes in a Uint8Array, got/,
      );
    }
    for (const length of [0, 3, 5]) assert.throws(() => x.write(new Float32Array(length)), RangeError);
    assert.deepEqual([...(await x.data())], [5, 6, 7, 8]);
  });

  it('cannot be made from values that are not numbers', () => {
    const wrong: [unknown, object, RegExp][] = [
      [['1'], {}, /TypeError: tensor: element 0 must be a number, got string 1/],
      [[1, undefined], {}, /TypeError: tensor: element 1 must be a number, got undefined/],
      [BigInt64Array.of(1n), {}, /TypeError: tensor: element 0 must be a number, got bigint 1/],
      [[1, 2.5], { dtype: 'int32' }, /RangeError: tensor: element 1, 2.5, is not a 32-bit integer/],
      [[2 ** 31], { dtype: 'int32' }, /RangeError: tensor: element 0, 2147483648, is not/],
      [[Number.NaN], { dtype: 'int32' }, /RangeError: tensor: element 0, NaN, is not/],
      ['12', {}, /TypeError: tensor: data must be an array of numbers or a typed array, got string 12/],
      [new ArrayBuffer(4), {}, /TypeError: tensor: data must be an array of numbers or a typed array, got ArrayBuffer/],
    ];
    using device = openDevice('cpu');
    for (const [data, options, message] of wrong) {
      assert.throws(() => tensor(data as never, { device, ...options }), message);
    }
    assert.equal(device.memory().liveBytes, 0);
  });
});

describe('rows and reshape of a tensor that gradients flow to', () => {
  it('throw and name the op that gradients flow through; a frozen one, an alias and values without gradients have views', () => {
    tidy(() => {
      const w = new Parameter(zeros([2, 4]), { name: 'w' });
      const tape = new Tape();
      const y = tape.run(() => linear(zeros([3, 4]), w));
      for (const [subject, name] of [
        [w, 'w float32(2,4)'],
        [y, 'tensor float32(3,2)'],
      ] as const) {
        assert.throws(() => subject.rows(0, 1), {
          message:
            `rows(0, 1): gradients flow to ${name}, but none would flow through this view; ` +
            'use the op rows(x, 0, 1) for a view that passes gradients on, or x.alias().rows(0, 1) for a constant',
        });
        assert.throws(() => subject.reshape([subject.size]), {
          message: new RegExp(
            `^reshape\\(\\[${subject.size}\\]\\): gradients flow to .* the op reshape\\(x, \\[${subject.size}\\]\\)`,
          ),
        });
        assert.deepEqual(
          subject
            .alias()
            .rows(0, 1)
            .reshape([subject.size / subject.shape[0]!]).requiresGrad,
          false,
        );
      }
      tape.backward(y, y); // a gradient is a constant, whatever it was
      w.requiresGrad = false;
      assert.deepEqual(w.rows(0, 1).shape, [1, 4]);
      w.dispose();
    });
  });
});
