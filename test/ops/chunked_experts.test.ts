// A mixture of experts: gradients, precision, every chunk size, and that which experts a token has is as its definition says.
import assert from 'node:assert/strict';
import { noGrad, openDevice, Parameter, rows, Tape, type Tensor, tensor, tidy } from '../../lib/index.ts';
import { type ChunkedExpertsOptions, chunkedExperts } from '../../lib/ops/chunked_experts.ts';
import { emptyGroup, zeros } from '../../lib/runtime/tensor.ts';
import { assertClose } from '../support/compare.ts';
import { debugDevice, leavingNothing, openTestDevice, valuesOf } from '../support/devices.ts';
import { checkGradients, checkPrecision } from '../support/gradient_check.ts';
import { assertAllClose, outputs } from '../support/outputs.ts';
import { normals } from '../support/random.ts';

interface Sizes {
  N: number;
  C: number;
  E: number;
  F: number;
}
const shapesOf = ({ N, C, E, F }: Sizes) => [
  [N, C],
  [E, C],
  [E * 2 * F, C],
  [E * C, F],
];

/** Of weights that hold those of all experts, one after the other. */
const mixture =
  ({ C, E, F }: Sizes, options: ChunkedExpertsOptions) =>
  ([x, router, gateUp, down]: Tensor[]): Tensor => {
    const parts = (whole: Tensor, count: number, size: number) =>
      Array.from({ length: count }, (_, i) => rows(whole, i * size, (i + 1) * size));
    const experts = { router: router!, gateUp: parts(gateUp!, 2 * E, F), down: parts(down!, E, C) };
    return tidy(() => chunkedExperts(x!, experts, options));
  };

const small = { N: 5, C: 3, E: 4, F: 4 };
const silu = (x: number) => x / (1 + Math.exp(-x));

describe('chunkedExperts', () => {
  for (const isNormalized of [true, false]) {
    for (const [perToken, chunkSize] of [
      [1, 2],
      [2, 3],
      [3, 5],
    ] as const) {
      // A weight that is divided by itself is 1, and the router gets no gradient.
      if (isNormalized && perToken === 1) continue;
      it(`has the gradients of central differences: ${perToken} of 4, chunks of ${chunkSize}, ${isNormalized ? '' : 'not '}normalised`, () =>
        checkGradients((...inputs) => mixture(small, { perToken, isNormalized, chunkSize })(inputs), shapesOf(small), {
          limits: { bfloat16: 1 }, // few logits, of which rounding may choose others
        }));
    }
  }
  it('has them with geluTanh', () =>
    checkGradients(
      (...inputs) => mixture(small, { perToken: 2, isNormalized: true, activation: 'geluTanh' })(inputs),
      shapesOf(small),
      { limits: { bfloat16: 1 } },
    ));

  it('is precise where all experts are taken', () => {
    const sizes = { N: 70, C: 64, E: 3, F: 48 };
    return checkPrecision(
      (...inputs) => mixture(sizes, { perToken: 3, isNormalized: false, chunkSize: 32 })(inputs),
      shapesOf(sizes),
      { deviation: 0.5 },
    );
  });

  for (const chunkSize of [1, 3, 7, 22, 23, 28]) {
    it(`equals the whole in f32: chunks of ${chunkSize} of 23`, async () => {
      const sizes = { N: 23, C: 19, E: 6, F: 21 };
      const run = (chunkSize: number) =>
        outputs('float32', shapesOf(sizes), mixture(sizes, { perToken: 2, isNormalized: true, chunkSize }));
      assertAllClose(await run(chunkSize), await run(23), 1e-5);
    });
  }

  it('is the sum over the most probable experts', async () => {
    const { N, C, E, F } = { N: 9, C: 4, E: 5, F: 6 };
    const [x, router, gateUp, down] = shapesOf({ N, C, E, F }).map(([rows, cols], i) => normals(rows! * cols!, 7 * i));
    const dot = (a: Float64Array, i: number, b: Float64Array, j: number, length: number) =>
      Array.from({ length }, (_, c) => a[i * length + c]! * b[j * length + c]!).reduce((sum, each) => sum + each, 0);
    const expected = Array.from({ length: N }, (_, n) => {
      const logits = Array.from({ length: E }, (_, e) => dot(x!, n, router!, e, C));
      const chosen = [...logits.keys()].sort((a, b) => logits[b]! - logits[a]!).slice(0, 2);
      const sum = chosen.reduce((sum, e) => sum + Math.exp(logits[e]!), 0);
      return Array.from({ length: C }, (_, c) =>
        chosen.reduce((y, e) => {
          const h = Float64Array.from({ length: F }, (_, f) => {
            const gate = dot(x!, n, gateUp!, 2 * e * F + f, C);
            return silu(gate) * dot(x!, n, gateUp!, (2 * e + 1) * F + f, C);
          });
          return y + (Math.exp(logits[e]!) / sum) * dot(h, 0, down!, e * C + c, F);
        }, 0),
      );
    }).flat();
    using device = openTestDevice();
    const made = [x, router, gateUp, down].map((values, i) =>
      tensor(Float32Array.from(values!), { device, shape: shapesOf({ N, C, E, F })[i]! }),
    );
    const y = noGrad(() => mixture({ N, C, E, F }, { perToken: 2, isNormalized: true, chunkSize: 4 })(made));
    assertClose(await valuesOf(y), expected, 2e-6, 'output');
    for (const each of [y, ...made]) each.dispose();
  });

  it('takes the same memory however tokens are routed, which meta predicts', async () => {
    const { N, C, E, F } = { N: 40, C: 8, E: 4, F: 12 };
    const peak = (name: 'cpu' | 'meta', bias: number) => {
      using device = openDevice(name);
      using x = tensor(Float32Array.from(normals(N * C, 1), Math.abs), { device, shape: [N, C] });
      using router = new Parameter(zeros([E, C], { device }));
      if (name === 'cpu') router.write(Float32Array.from({ length: E * C }, (_, i) => (i < C ? bias : i / 1000)));
      const group = (count: number, shape: number[]) =>
        emptyGroup(Array(count).fill(shape), { device }).map((each) => new Parameter(each));
      const experts = { router, gateUp: group(2 * E, [F, C]), down: group(E, [C, F]) };
      const tape = new Tape();
      const y = tape.run(() => chunkedExperts(x, experts, { perToken: 2, isNormalized: true, chunkSize: 16 }));
      tape.backward(y, y);
      y.dispose();
      for (const each of [...experts.gateUp, ...experts.down]) each.dispose();
      return device.memory().peakBytes;
    };
    const predicted = peak('meta', 0);
    assert.deepEqual([peak('cpu', 0), peak('cpu', 9), peak('cpu', -9)], [predicted, predicted, predicted]);
  });

  it('gives an expert that is not frozen its gradient, and adds to one that is there', async () => {
    const { N, C, E, F } = { N: 12, C: 4, E: 3, F: 6 };
    const device = debugDevice();
    const gradientsWith = (prepare: (experts: { gateUp: Parameter[]; down: Parameter[] }) => void) =>
      leavingNothing(device, async () => {
        const made = (values: number, seed: number, shape: number[]) =>
          tensor(Float32Array.from(normals(values, seed)), { device, shape });
        const group = (count: number, shape: number[], seed: number) =>
          emptyGroup(Array(count).fill(shape), { device }).map((memory, i) => {
            const parameter = new Parameter(memory);
            parameter.write(Float32Array.from(normals(parameter.size, seed + i)));
            return parameter;
          });
        const [x, router] = [made(N * C, 1, [N, C]), made(E * C, 2, [E, C])];
        const [gateUp, down] = [group(2 * E, [F, C], 10), group(E, [C, F], 30)];
        prepare({ gateUp, down });
        const tape = new Tape();
        const y = tape.run(() =>
          chunkedExperts(x, { router, gateUp, down }, { perToken: 2, isNormalized: true, chunkSize: 5 }),
        );
        tape.backward(y, x);
        const gradients = await Promise.all([...gateUp, ...down].map(({ grad }) => grad?.toFloat32()));
        for (const each of [x, y, router, ...gateUp, ...down]) each.dispose();
        return gradients;
      });
    const all = await gradientsWith(() => {});
    const some = await gradientsWith(({ gateUp, down }) => {
      gateUp[1]!.requiresGrad = false;
      down[2]!.requiresGrad = false;
      down[0]!.grad = tensor(new Float32Array(C * F).fill(1), { device, shape: [C, F] }).keep();
    });
    for (const [i, gradient] of some.entries()) {
      if (i === 1 || i === 2 * E + 2) assert.equal(gradient, undefined);
      else assertClose(gradient!, i === 2 * E ? all[i]!.map((value) => value + 1) : all[i]!, 1e-6, `gradient ${i}`);
    }
  });

  it('refuses what does not fit, by name', () => {
    using device = openDevice('meta');
    const { N, C, E, F } = { N: 3, C: 4, E: 2, F: 6 };
    tidy(() => {
      const x = zeros([N, C], { device });
      const group = (count: number, shape: number[]) => emptyGroup(Array(count).fill(shape), { device });
      const experts = { router: zeros([E, C], { device }), gateUp: group(2 * E, [F, C]), down: group(E, [C, F]) };
      const call = (change: Partial<typeof experts>, options: Partial<ChunkedExpertsOptions> = {}) =>
        chunkedExperts(x, { ...experts, ...change }, { perToken: 2, isNormalized: true, ...options });
      assert.deepEqual(call({}).shape, [N, C]);
      assert.throws(() => call({}, { perToken: 3 }), /chunkedExperts: perToken must be an integer in \[1, 2\], got 3/);
      assert.throws(() => call({}, { chunkSize: 0 }), /chunkedExperts: chunkSize/);
      assert.throws(() => call({}, { activation: 'relu' as never }), /chunkedExperts: activation 'relu'/);
      assert.throws(() => call({ gateUp: group(3, [F, C]) }), /chunkedExperts: gateUp must be 4 tensors .*got 3/);
      assert.throws(
        () => call({ router: zeros([3, C], { device }) }),
        /chunkedExperts: router must be \(2,4\), got \(3,4\)/,
      );
      assert.throws(
        () => call({ down: [zeros([C, F], { device }), zeros([C, F], { device })] }),
        /chunkedExperts: the 2 tensors of down must lie side by side/,
      );
    });
  });
});
