// Every op in f32 and bf16 at ragged and larger shapes, which reach every path of the kernels, against f64 on the CPU.
import {
  add,
  attention,
  type ChunkedCrossEntropyOptions,
  chunkedCrossEntropy,
  chunkedMlp,
  crossEntropy,
  dropout,
  embedding,
  geglu,
  linear,
  rmsNorm,
  rope,
  scale,
  softcap,
  swiglu,
  type Tensor,
  tensor,
} from '../../lib/index.ts';
import { debugDevice } from '../support/devices.ts';
import { checkPrecision } from '../support/gradient_check.ts';
import { integers } from '../support/random.ts';

const ids = (values: ArrayLike<number>) => tensor(Int32Array.from(values), { device: debugDevice() });

/** One test of `fn` at these shapes. */
const op = (name: string, shapes: number[][], fn: (...inputs: Tensor[]) => Tensor, limits = {}) =>
  it(name, () => checkPrecision(fn, shapes, { limits }));

const same = (shape: number[], count: number) => Array.from({ length: count }, () => shape);

describe('precision', () => {
  for (const [N, I, O] of [
    [1, 1, 1],
    [3, 7, 5],
    [65, 33, 130],
    [257, 512, 384],
  ] as const) {
    op(
      `linear ${N}x${I}x${O}`,
      [
        [N, I],
        [O, I],
      ],
      (x, w) => linear(x, w),
    );
  }
  op('linear with bias', [[65, 33], [130, 33], [130]], (x, w, b) => linear(x, w, b));
  op('softcap', [[9, 130]], (x) => softcap(x, 0.7));
  op('dropout', [[9, 130]], (x) => dropout(x, { probability: 0.3, seed: 5, step: 7 }, 9));
  op('rmsNorm of heads', [[37, 6 * 80], [80]], (x, w) => rmsNorm(x, w, { eps: 1e-5 }));
  for (const C of [2, 7, 64, 1025, 4096]) {
    op(`rmsNorm C ${C}`, [[37, C], [C]], (x, w) => rmsNorm(x, w, { eps: 1e-5, weightOffset: 1 }));
    op(`swiglu F ${C}`, same([9, C], 2), (gate, up) => swiglu(gate, up));
    op(`geglu F ${C}`, same([9, C], 2), (gate, up) => geglu(gate, up));
    op(`embedding C ${C}`, [[50, C]], (w) => embedding(w, ids(integers(300, 50, 3))));
    op(`add and scale C ${C}`, same([9, C], 2), (a, b) => scale(add(a, b), 1.5));
  }

  for (const [T, D] of [
    [1, 2],
    [100, 64],
    [300, 128],
  ] as const) {
    const inverse = Float64Array.from({ length: D / 2 }, (_, d) => 500000 ** ((-2 * d) / D));
    op(`rope T ${T} D ${D}`, [[2 * T, 3 * D]], (x) =>
      rope(x, { inverseFrequencies: tensor(inverse, { device: debugDevice() }) }, T),
    );
  }

  // The last four: shapes that cuDNN takes where it is there.
  for (const [B, T, H, G, D] of [
    [1, 1, 1, 1, 16],
    [2, 63, 4, 2, 64],
    [1, 65, 4, 1, 80],
    [1, 70, 2, 2, 96],
    [1, 300, 3, 3, 128],
    [1, 97, 2, 1, 256],
    [1, 128, 4, 1, 128],
    [2, 256, 4, 2, 64],
    [1, 384, 4, 4, 80],
    [1, 512, 8, 2, 256],
  ] as const) {
    const shapes = [
      [B * T, H * D],
      [B * T, G * D],
      [B * T, G * D],
    ];
    const starts = Array.from({ length: B * T }, (_, n) => n - ((n % T) % 29));
    for (const options of [{}, { window: 40 }, { window: 100, softcap: 5 }, { softcap: 5 }]) {
      op(`attention B ${B} T ${T} H ${H} G ${G} D ${D} ${JSON.stringify(options)}`, shapes, (q, k, v) =>
        attention(q, k, v, { T, headSize: D, ...options }),
      );
    }
    op(`attention B ${B} T ${T} H ${H} G ${G} D ${D} over documents`, shapes, (q, k, v) =>
      attention(q, k, v, { T, headSize: D, documentStart: ids(starts) }),
    );
  }

  const variants: ChunkedCrossEntropyOptions[] = [
    {},
    { labelSmoothing: 0.1, zLoss: 1e-3 },
    { softcap: 5 },
    { divisor: 17, softcap: 10, labelSmoothing: 0.2, zLoss: 1e-3 },
  ];
  for (const V of [2, 50, 1025, 32000]) {
    const targets = integers(70, V, 5);
    targets[3] = -100;
    for (const options of variants) {
      op(
        `crossEntropy V ${V} ${JSON.stringify(options)}`,
        [[70, V]],
        (x) => crossEntropy(x, ids(targets), options).loss,
      );
      for (const chunkSize of V === 32000 ? [32] : [1, 32, 70, 100]) {
        op(
          `chunkedCrossEntropy V ${V} chunks of ${chunkSize} ${JSON.stringify(options)}`,
          [
            [70, 48],
            [V, 48],
          ],
          (h, w) => chunkedCrossEntropy(h, w, ids(targets), { ...options, chunkSize }).loss,
        );
      }
    }
  }

  const [N, C, F] = [200, 64, 176];
  const weights = [[N, C], ...same([F, C], 2), [C, F]];
  for (const chunkSize of [1, 64, 200, 300]) {
    for (const save of ['input', 'gateUp'] as const) {
      op(`chunkedMlp chunks of ${chunkSize} ${save}`, weights, (x, g, u, d) =>
        chunkedMlp(x, g, u, d, { chunkSize, save }),
      );
    }
  }
  for (const probability of [0, 0.3]) {
    op(
      `chunkedMlp with adapters, dropout ${probability}`,
      [...weights, [8, C], [F, 8], [4, F], [C, 4]],
      (x, g, u, d, ga, gb, da, db) =>
        chunkedMlp(x, g, u, d, {
          chunkSize: 64,
          dropout: { probability, seed: 3, step: 5 },
          adapters: { gate: { a: ga, b: gb, scale: 0.7, op: 1 }, down: { a: da, b: db, scale: 0.7, op: 2 } },
        }),
    );
  }
});
