// AdamW against a plain loop in f64 on the host.
import assert from 'node:assert/strict';
import {
  AdamW,
  type AdamWOptions,
  clipGradNorm,
  type Dtype,
  Parameter,
  tensor,
  toBfloat16,
  toFloat32,
  zeros,
} from '../../lib/index.ts';
import { assertClose } from '../support/compare.ts';
import { debugDevice, hasFloat64, leavingNothing, precise, valuesOf, within } from '../support/devices.ts';
import { itRefusesNumbers } from '../support/ops.ts';
import { normals } from '../support/random.ts';

const rates = [1e-2, 3e-3, 1e-1, 0, 2e-2];

const sizeOf = (shape: readonly number[]) => shape.reduce((a, b) => a * b, 1);

/** A parameter with these values, rounded to the dtype. */
function parameterOf(values: Float64Array, shape: number[], dtype: Dtype): Parameter {
  const data = dtype === 'bfloat16' ? toBfloat16(Float32Array.from(values)) : values;
  return new Parameter(tensor(data, { shape, dtype, device: debugDevice() }));
}

function setGradient(parameter: Parameter, values: Float64Array): void {
  parameter.zeroGrad();
  const dtype = parameter.dtype === 'bfloat16' ? 'float32' : parameter.dtype;
  parameter.grad = tensor(values, { shape: [...parameter.shape], dtype, device: parameter.device }).keep();
}

/** θ ← θ·(1 − lr·decay) − lr·m̂ / (√v̂ + eps). */
class HostAdamW {
  readonly values: Float64Array;
  readonly #m: Float64Array;
  readonly #v: Float64Array;
  #step = 0;

  constructor(values: ArrayLike<number>) {
    this.values = Float64Array.from(values);
    this.#m = new Float64Array(values.length);
    this.#v = new Float64Array(values.length);
  }

  step(
    gradient: Float64Array,
    rate: number,
    {
      beta1,
      beta2,
      eps,
      weightDecay,
    }: Required<Omit<AdamWOptions, 'masterWeights' | 'stateBits' | 'seed' | 'readStored' | 'shards'>>,
  ): void {
    this.#step += 1;
    gradient.forEach((g, i) => {
      this.#m[i] = beta1 * this.#m[i]! + (1 - beta1) * g;
      this.#v[i] = beta2 * this.#v[i]! + (1 - beta2) * g * g;
      const mean = this.#m[i]! / (1 - beta1 ** this.#step);
      const square = this.#v[i]! / (1 - beta2 ** this.#step);
      this.values[i] = this.values[i]! * (1 - rate * weightDecay) - (rate * mean) / (Math.sqrt(square) + eps);
    });
  }
}

const tolerances = { float64: 1e-13, float32: 1e-6, bfloat16: 3e-3 };
const dtypes = (['float64', 'float32', 'bfloat16'] as const).filter((dtype) => hasFloat64 || dtype !== 'float64');

const options = { beta1: 0.8, beta2: 0.9, eps: 1e-6, weightDecay: 0.3 };

describe('AdamW', () => {
  for (const dtype of dtypes) {
    const tolerance = tolerances[dtype];
    for (const shape of [[7], [3, 5], [1, 1], [2, 3, 2], [300, 70]]) {
      it(`${dtype} (${shape}) over ${rates.length} steps`, () =>
        leavingNothing(debugDevice(), async () => {
          const parameter = parameterOf(normals(sizeOf(shape), 1), shape, dtype);
          using optimizer = new AdamW([parameter], options);
          const host = new HostAdamW(await parameter.toFloat32());
          if (dtype === 'float64') host.values.set(normals(sizeOf(shape), 1));
          for (const [step, rate] of rates.entries()) {
            const gradient = normals(sizeOf(shape), 10 + step);
            setGradient(parameter, gradient);
            optimizer.step(rate);
            host.step(gradient, rate, { ...options, weightDecay: shape.length >= 2 ? options.weightDecay : 0 });
            assertClose(await valuesOf(parameter), host.values, tolerance, `step ${step}`);
          }
          const [, numSteps] = [...optimizer.state()].find(([name]) => name === 'numSteps')!;
          assert.equal(await numSteps.item(), rates.length);
          parameter.zeroGrad();
          parameter.dispose();
        }));
    }
  }

  it('has the defaults of its documentation', () =>
    leavingNothing(debugDevice(), async () => {
      const start = normals(6, 1);
      const parameter = parameterOf(start, [2, 3], precise);
      using optimizer = new AdamW([parameter]);
      const host = new HostAdamW(start);
      for (let step = 0; step < 3; step++) {
        setGradient(parameter, normals(6, 2 + step));
        optimizer.step(0.05);
        host.step(normals(6, 2 + step), 0.05, { beta1: 0.9, beta2: 0.95, eps: 1e-8, weightDecay: 0.1 });
      }
      assertClose(await valuesOf(parameter), host.values, tolerances[precise], 'parameter');
      parameter.zeroGrad();
      parameter.dispose();
    }));

  it('decays parameters of 2 or more dimensions alone', () =>
    leavingNothing(debugDevice(), async () => {
      const shapes = [[4], [4, 1], [1, 2, 2]];
      const parameters = shapes.map((shape) => parameterOf(new Float64Array(4).fill(2), shape, precise));
      using optimizer = new AdamW(parameters, { weightDecay: 0.5 });
      for (const parameter of parameters) setGradient(parameter, new Float64Array(4));
      optimizer.step(0.1);
      const first = await Promise.all(parameters.map(async (parameter) => (await parameter.data())[0] as number));
      assertClose(first, [2, 1.9, 1.9], within({ float64: 1e-15, float32: 1e-7 }), 'decayed');
      for (const parameter of parameters) {
        parameter.zeroGrad();
        parameter.dispose();
      }
    }));

  for (const masterWeights of [true, false]) {
    it(`bfloat16: reads bf16 gradients as the f32 ones of the same values, master weights ${masterWeights}`, () =>
      leavingNothing(debugDevice(), async () => {
        const [size, shape] = [300 * 70, [300, 70]];
        const results = [];
        for (const dtype of ['float32', 'bfloat16'] as const) {
          const parameter = parameterOf(normals(size, 1), shape, 'bfloat16');
          using optimizer = new AdamW([parameter], { ...options, masterWeights, seed: 3 });
          const norms = [];
          for (let step = 0; step < 3; step++) {
            parameter.zeroGrad();
            const values = toFloat32(toBfloat16(normals(size, 10 + step)));
            parameter.grad = tensor(values, { shape, dtype, device: debugDevice() }).keep();
            const clipped = clipGradNorm([parameter], 1);
            optimizer.step(0.01, clipped.factor);
            norms.push(await clipped.norm.item());
            for (const each of [clipped.norm, clipped.factor, clipped.squares]) each.dispose();
          }
          const state = await Promise.all([...optimizer.state()].map(([, tensor]) => tensor.data()));
          results.push([norms, await parameter.data(), state]);
          parameter.dispose();
        }
        assert.deepEqual(results[1], results[0]);
      }));
  }

  it('leaves parameters without a gradient as they are', () =>
    leavingNothing(debugDevice(), async () => {
      const [with_, without] = [1, 2].map((seed) => parameterOf(normals(4, seed), [2, 2], 'float32'));
      using optimizer = new AdamW([with_!, without!]);
      const before = await without!.data();
      setGradient(with_!, normals(4, 3));
      optimizer.step(0.1);
      assert.deepEqual(await without!.data(), before);
      assert.notDeepEqual(await with_!.toFloat32(), Float32Array.from(normals(4, 1)));
      with_!.zeroGrad();
      for (const each of [with_!, without!]) each.dispose();
    }));

  it('multiplies gradients by the factor', () =>
    leavingNothing(debugDevice(), async () => {
      const parameters = [1, 1].map((seed) => parameterOf(normals(6, seed), [2, 3], precise));
      const [scaled, plain] = parameters.map((parameter) => new AdamW([parameter], options));
      const factor = tensor([0.25], { dtype: precise, device: debugDevice() });
      for (let step = 0; step < 2; step++) {
        setGradient(parameters[0]!, normals(6, 5 + step));
        setGradient(
          parameters[1]!,
          normals(6, 5 + step).map((value) => value / 4),
        );
        scaled!.step(0.1, factor);
        plain!.step(0.1);
      }
      assert.deepEqual(await parameters[0]!.data(), await parameters[1]!.data());
      for (const each of [...parameters, factor]) each.dispose();
      for (const optimizer of [scaled!, plain!]) optimizer.dispose();
    }));

  for (const dtype of dtypes) {
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
      it(`${dtype}: a factor of ${bad} changes neither the parameter nor the state`, () =>
        leavingNothing(debugDevice(), async () => {
          const compute = dtype === 'bfloat16' ? 'float32' : dtype;
          const parameter = parameterOf(normals(6, 1), [2, 3], dtype);
          using optimizer = new AdamW([parameter], options);
          const factor = tensor([bad], { dtype: compute, device: debugDevice() });
          setGradient(parameter, normals(6, 2));
          optimizer.step(0.1);
          const before = await parameter.data();
          setGradient(parameter, new Float64Array(6).fill(Number.NaN));
          optimizer.step(0.1, factor);
          assert.deepEqual(await parameter.data(), before);

          // The state shows in the next step; the step that was left out does not count.
          const host = new HostAdamW(toFloat32(toBfloat16(Float32Array.from(normals(6, 1)))));
          if (dtype !== 'bfloat16') host.values.set(normals(6, 1));
          host.step(normals(6, 2), 0.1, options);
          host.step(normals(6, 3), 0.1, options);
          setGradient(parameter, normals(6, 3));
          optimizer.step(0.1);
          assertClose(await valuesOf(parameter), host.values, tolerances[dtype], 'after the step left out');
          for (const each of [parameter, factor]) each.dispose();
        }));
    }
  }

  it('bfloat16: updates too small for the parameter add up in its master weights', () =>
    leavingNothing(debugDevice(), async () => {
      const parameter = parameterOf(Float64Array.of(1), [1], 'bfloat16');
      using optimizer = new AdamW([parameter]);
      // A constant gradient moves by the learning rate: 1e-3 is under half a step of bf16 below 1, 2⁻⁸ / 2.
      for (let step = 1; step <= 50; step++) {
        setGradient(parameter, Float64Array.of(1));
        optimizer.step(1e-3);
        if (step === 1) assert.equal(await parameter.item(), 1);
      }
      const value = await parameter.item();
      assert.ok(Math.abs(value - 0.95) < 2 ** -8, `${value}`);
      parameter.zeroGrad();
      parameter.dispose();
    }));

  it('bfloat16 without master weights: rounds at random, so that small updates have their effect on average', () =>
    leavingNothing(debugDevice(), async () => {
      const size = 4096;
      const run = async (seed: number) => {
        const parameter = parameterOf(new Float64Array(size).fill(1), [size], 'bfloat16');
        using optimizer = new AdamW([parameter], { masterWeights: false, seed });
        for (let step = 1; step <= 50; step++) {
          setGradient(parameter, new Float64Array(size).fill(1));
          optimizer.step(1e-4);
        }
        const values = await parameter.toFloat32();
        parameter.zeroGrad();
        parameter.dispose();
        return values;
      };
      const values = await run(1);
      const mean = values.reduce((sum, value) => sum + value, 0) / size;
      // 50 roundings between neighbours 2⁻⁸ apart: the mean's deviation is below 2⁻⁸ / 2 · √50 / √4096 = 2.2e-4
      assert.ok(Math.abs(mean - 0.995) < 5 * 2.2e-4, `${mean}`);
      assert.ok(new Set(values).size > 2);
      assert.deepEqual(await run(1), values);
      assert.notDeepEqual(await run(2), values);
    }));

  it('allocates its state when made, none in a step, and gives it back', async () => {
    const device = debugDevice();
    for (const dtype of dtypes) {
      const bytes = { float64: 16, float32: 8, bfloat16: 12 }[dtype];
      const parameter = parameterOf(normals(4096, 1), [64, 64], dtype);
      setGradient(parameter, normals(4096, 2));
      const before = device.memory().liveBytes;
      const optimizer = new AdamW([parameter]);
      const made = device.memory().liveBytes;
      const count = 512; // the number of updates, in a block of its own
      assert.equal(made - before, bytes * 4096 + count, dtype);
      optimizer.step(0.1);
      await device.synchronize();
      assert.equal(device.memory().liveBytes, made);
      optimizer.dispose();
      assert.equal(device.memory().liveBytes, before);
      parameter.zeroGrad();
      parameter.dispose();
    }
  });

  it('refuses options that would give NaN', () => {
    for (const [wrong, message] of [
      [{ beta1: 1 }, /AdamW: beta1 must be .*got 1$/],
      [{ beta2: 1 }, /AdamW: beta2 must be .*got 1$/],
      [{ beta1: -0.1 }, /AdamW: beta1 must be .*got -0\.1$/],
      [{ eps: Number.NaN }, /AdamW: eps must be .*got NaN$/],
      [{ weightDecay: -1 }, /AdamW: weightDecay must be .*got -1$/],
    ] as [AdamWOptions, RegExp][]) {
      assert.throws(() => new AdamW([], wrong), message);
    }
    for (const rate of [-1, Number.NaN, Number.POSITIVE_INFINITY]) {
      using parameter = parameterOf(normals(2, 1), [2], 'float32');
      using optimizer = new AdamW([parameter]);
      assert.throws(() => optimizer.step(rate), new RegExp(`AdamW: learningRate must be .*got ${rate}$`));
    }
    assert.throws(() => new AdamW([]), /AdamW: parameters is empty/);
  });
});

itRefusesNumbers('AdamW: seed', [0.5, 2 ** 53], (seed, on) => new AdamW([new Parameter(zeros([1], on))], { seed }));

itRefusesNumbers('AdamW: eps', [0, 1e-39], (eps, on) => new AdamW([new Parameter(zeros([1], on))], { eps }));
