import assert from 'node:assert/strict';
import {
  attention,
  linear,
  openDevice,
  Parameter,
  recompute,
  rmsNorm,
  rope,
  Tape,
  type Tensor,
  tensor,
  tidy,
  zeros,
} from '../../lib/index.ts';
import { type AttentionInGroupsOptions, attentionInGroups } from '../../lib/ops/attention_in_groups.ts';
import { kernels } from '../../lib/runtime/native.ts';
import { assertClose } from '../support/compare.ts';
import { debugDevice, itOnCpu } from '../support/devices.ts';
import { checkGradients } from '../support/gradient_check.ts';
import { ids, itIsPrecise, itRefusesNumbers } from '../support/ops.ts';
import { normals } from '../support/random.ts';

interface Shape {
  N: number;
  C: number;
  H: number;
  G: number;
  D: number;
}
type Options = Partial<AttentionInGroupsOptions> & {
  T: number;
  hasRope?: boolean;
  isRecomputed?: boolean;
  starts?: number[];
};

/** Of x, the norm's weight, the projections' and the bias of queries. */
const shapesOf = ({ N, C, H, G, D }: Shape) => [[N, C], [C], [H * D, C], [G * D, C], [G * D, C], [H * D]];

const anglesOf = (D: number) =>
  tensor(
    Float64Array.from({ length: D / 2 }, (_, d) => 10 ** -d),
    { device: debugDevice() },
  );

/** x, its norm, the projections (queries with a bias), rotation and attention, by the op. */
function inGroups(
  { H, G, D }: Shape,
  groups: number,
  { hasRope = true, isRecomputed = false, starts, ...options }: Options,
) {
  return (x: Tensor, norm: Tensor, ...weights: Tensor[]) => {
    const [q, k, v, bias] = weights as [Tensor, Tensor, Tensor, Tensor];
    const of =
      (weight: Tensor, bias: Tensor | null = null) =>
      (x: Tensor, heads: { begin: number; end: number } | null) => {
        if (!heads) return linear(x, weight, bias);
        const rows = (whole: Tensor) => whole.alias().rows(heads.begin * D, heads.end * D);
        return tidy(() => linear(x, rows(weight), bias && rows(bias)));
      };
    const run = (x: Tensor) =>
      attentionInGroups(x, {
        numHeads: H,
        numKeyValueHeads: G,
        headSize: D,
        groups,
        normalized: (x) => rmsNorm(x, norm, { eps: 1e-5 }),
        project: { q: of(q, bias), k: of(k), v: of(v) },
        rope: hasRope ? { inverseFrequencies: anglesOf(D), scale: 1.1 } : null,
        documentStart: starts && ids(starts),
        ...options,
      });
    return isRecomputed ? recompute((x) => run(x!), [x]) : run(x);
  };
}

/** The same by ops that take all heads at once. */
function atOnce({ D }: Shape, { hasRope = true, isRecomputed: _, starts: __, ...options }: Options) {
  return (x: Tensor, norm: Tensor, ...weights: Tensor[]) => {
    const [q, k, v, bias] = weights as [Tensor, Tensor, Tensor, Tensor];
    const read = rmsNorm(x, norm, { eps: 1e-5 });
    const rotated = (heads: Tensor) =>
      hasRope ? rope(heads, { inverseFrequencies: anglesOf(D), scale: 1.1 }, options.T) : heads;
    const heads = [rotated(linear(read, q, bias)), rotated(linear(read, k)), linear(read, v)] as const;
    return attention(...heads, { headSize: D, ...options });
  };
}

/** Output and gradients in f64. */
async function valuesOf(fn: (...inputs: Tensor[]) => Tensor, shapes: number[][]): Promise<Float64Array[]> {
  const device = debugDevice();
  const leaves = shapes.map((shape, i) => {
    const data = normals(
      shape.reduce((a, b) => a * b),
      7 + i,
    );
    return new Parameter(tensor(data, { shape, dtype: 'float64', device }));
  });
  const tape = new Tape();
  const output = tape.run(() => fn(...leaves));
  const cotangent = normals(output.size, 3);
  tidy(() => tape.backward(output, tensor(cotangent, { shape: output.shape, dtype: 'float64', device })));
  const found = await Promise.all([output, ...leaves.map(({ grad }) => grad!)].map((each) => each.data()));
  for (const each of [output, ...leaves]) each.dispose();
  return found as Float64Array[];
}

const small = { N: 8, C: 3, H: 4, G: 2, D: 2 };
const cases: Record<string, Options> = {
  'two sequences': { T: 4 },
  'a window and soft-cap': { T: 8, window: 3, softcap: 2, scale: 0.7 },
  documents: { T: 8, starts: [0, 0, 2, 2, 2, 5, 5, 5] },
  'no rotation': { T: 8, hasRope: false },
};

// Five ops in a row: bf16's limit is that of all heads at once.
describe('attentionInGroups', () => {
  for (const [name, options] of Object.entries(cases)) {
    it(`has the gradients of central differences: ${name}`, () => {
      const fn = inGroups(small, 2, { ...options, isRecomputed: true });
      return checkGradients(fn, shapesOf(small), { limits: { bfloat16: 4e-2 } });
    });
  }

  itOnCpu('in f64 is the ops that take all heads at once', async () => {
    const shape = { N: 66, C: 24, H: 8, G: 4, D: 6 };
    for (const options of [{ T: 33 }, { T: 22, window: 7, softcap: 3 }]) {
      const expected = await valuesOf(atOnce(shape, options), shapesOf(shape));
      for (const groups of [1, 2, 4]) {
        for (const isRecomputed of [false, true]) {
          const found = await valuesOf(inGroups(shape, groups, { ...options, isRecomputed }), shapesOf(shape));
          for (const [i, values] of found.entries()) assertClose(values, expected[i]!, 1e-14, `${groups} groups, ${i}`);
        }
      }
    }
  });

  // The last two: shapes that cuDNN takes where it is there.
  for (const [shape, T] of [
    [{ N: 126, C: 40, H: 4, G: 2, D: 64 }, 63],
    [{ N: 128, C: 32, H: 8, G: 4, D: 64 }, 128],
    [{ N: 256, C: 32, H: 4, G: 2, D: 128 }, 128],
  ] as const) {
    itIsPrecise(
      `${JSON.stringify(shape)}, T ${T}`,
      shapesOf(shape),
      inGroups(shape, 2, { T, isRecomputed: true, scale: 0.01 }),
    );
  }

  it('has queries, keys, values and their gradients of one group at a time', () => {
    const [N, C, H, G, D] = [4096, 64, 8, 8, 8] as const;
    const peakOf = (groups: number) => {
      using device = openDevice('meta', { like: { kind: 'cuda' } });
      const { attention_backward: real } = kernels;
      let peak = 0;
      kernels.attention_backward = (...args) => {
        peak = device.memory().live.activation;
        real(...args);
      };
      try {
        tidy(() => {
          const on = { device, dtype: 'bfloat16' } as const;
          const leaves = shapesOf({ N, C, H, G, D }).map((shape) => new Parameter(zeros(shape, on)));
          const tape = new Tape();
          const options = { T: N, hasRope: false, isRecomputed: true };
          const output = tape.run(() =>
            inGroups({ N, C, H, G, D }, groups, options)(...(leaves as Tensor[] as [Tensor, Tensor])),
          );
          tape.backward(output, zeros([N, H * D], on));
          for (const leaf of leaves) leaf.dispose();
        });
      } finally {
        kernels.attention_backward = real;
      }
      return peak;
    };
    // What groups share: the output and its gradient with log-sum-exps, and keys' and values' gradients. Of a group: q, k, v, out, and all
    // their gradients.
    const [whole, each] = [N * H * D * 2, N * H * 4];
    for (const groups of [2, 4, 8])
      assert.equal(peakOf(1) - peakOf(groups), (8 * whole + each) * (1 - 1 / groups), `${groups}`);
  });

  it('refuses groups that divide no key/value heads', () => {
    const on = { device: debugDevice() };
    const run = (groups: number, H = 4) =>
      tidy(() => {
        const inputs = shapesOf({ N: 4, C: 4, H, G: 2, D: 2 }).map((shape) => zeros(shape, on));
        return inGroups({ N: 4, C: 4, H, G: 2, D: 2 }, groups, { T: 4 })(...(inputs as [Tensor, Tensor]));
      });
    assert.throws(() => run(4), /RangeError: attentionInGroups: groups 4 must divide numKeyValueHeads 2/);
    assert.throws(
      () => run(2, 3),
      /RangeError: attentionInGroups: numHeads 3 must be a multiple of numKeyValueHeads 2/,
    );
  });

  itRefusesNumbers('attentionInGroups: groups', [0, 1.5], (groups, on) =>
    inGroups({ N: 4, C: 4, H: 2, G: 2, D: 2 }, groups, { T: 4, hasRope: false })(
      zeros([4, 4], on),
      zeros([4], on),
      zeros([4, 4], on),
      zeros([4, 4], on),
      zeros([4, 4], on),
      zeros([4], on),
    ),
  );
});
