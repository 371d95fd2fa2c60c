// Every differentiable op at small shapes, on the debug arena: gradients against central differences in f64, f32 and bf16 against f64.
import {
  add,
  attention,
  cast,
  chunkedCrossEntropy,
  chunkedMlp,
  crossEntropy,
  embedding,
  geglu,
  linear,
  miniSequence,
  recompute,
  reshape,
  rmsNorm,
  rope,
  rows,
  scale,
  softcap,
  swiglu,
  tensor,
} from '../../lib/index.ts';
import { debugDevice } from '../support/devices.ts';
import { checkGradients } from '../support/gradient_check.ts';

const ids = (...values: number[]) => tensor(Int32Array.from(values), { device: debugDevice() });

describe('outputs and gradients', () => {
  it('linear', () =>
    checkGradients(
      (x, w) => linear(x, w),
      [
        [5, 3],
        [4, 3],
      ],
    ));
  it('embedding, with repeated ids', () => checkGradients((w) => embedding(w, ids(2, 0, 2, 4)), [[5, 3]]));
  it('linear with bias', () => checkGradients((x, w, b) => linear(x, w, b), [[5, 3], [4, 3], [4]]));
  it('views: reshape and rows, of values and of parameters, of the same tensor twice', () =>
    checkGradients(
      (x, w) => linear(add(scale(rows(x, 0, 2), 3), rows(x, 1, 3)), reshape(rows(w, 1, 3), [4, 3])),
      [
        [3, 3],
        [4, 6],
      ],
    ));
  it('views inside regions', () =>
    checkGradients(
      (x, w) =>
        miniSequence(
          (x) => recompute((x) => linear(reshape(scale(x, 2), [x.shape[0]!, 6]), reshape(w, [4, 6])), [x]),
          reshape(x, [5, 6]),
          { chunkSize: 2 },
        ),
      [
        [5, 3, 2],
        [2, 12],
      ],
    ));
  it('softcap', () => checkGradients((x) => softcap(x, 0.7), [[3, 5]]));
  it('rmsNorm of heads', () => checkGradients((x, w) => rmsNorm(x, w, { eps: 1e-5 }), [[5, 6], [3]]));
  it('rmsNorm', () => checkGradients((x, w) => rmsNorm(x, w, { eps: 1e-5 }), [[5, 7], [7]]));
  it('rmsNorm with 1 + weight', () =>
    checkGradients((x, w) => rmsNorm(x, w, { eps: 1e-5, weightOffset: 1 }), [[2, 3], [3]]));
  it('add, of a tensor and itself too', () =>
    checkGradients(
      (a, b) => add(add(a, b), a),
      [
        [3, 2],
        [3, 2],
      ],
    ));
  it('scale', () => checkGradients((x) => scale(x, -1.5), [[3, 2]]));
  it('cast', () => checkGradients((x) => cast(x, x.dtype === 'float64' ? 'float64' : 'float32'), [[3, 2]]));
  it('swiglu', () =>
    checkGradients(
      (gate, up) => swiglu(gate, up),
      [
        [3, 5],
        [3, 5],
      ],
    ));
  it('geglu', () =>
    checkGradients(
      (gate, up) => geglu(gate, up),
      [
        [3, 5],
        [3, 5],
      ],
    ));

  it('rope over two sequences', () =>
    checkGradients(
      (x) => rope(x, { inverseFrequencies: tensor(Float64Array.of(1, 0.1), { device: debugDevice() }) }, 3),
      [[6, 8]],
    ));
  it('rope over documents, scaled', () =>
    checkGradients(
      (x) =>
        rope(
          x,
          { inverseFrequencies: tensor(Float64Array.of(1, 0.1), { device: debugDevice() }), scale: 1.3 },
          5,
          ids(0, 0, 2, 2, 2),
        ),
      [[5, 4]],
    ));

  const qkv = (N: number, H: number, G: number, D: number) => [
    [N, H * D],
    [N, G * D],
    [N, G * D],
  ];
  it('attention, grouped heads, two sequences', () =>
    checkGradients((q, k, v) => attention(q, k, v, { T: 5, headSize: 4 }), qkv(10, 4, 2, 4)));
  it('attention with a window and soft-cap', () =>
    checkGradients(
      (q, k, v) => attention(q, k, v, { T: 7, headSize: 4, window: 3, softcap: 2, scale: 0.7 }),
      qkv(7, 3, 1, 4),
    ));
  it('attention over documents', () =>
    checkGradients(
      (q, k, v) => attention(q, k, v, { T: 6, headSize: 2, documentStart: ids(0, 0, 2, 2, 2, 5) }),
      qkv(6, 2, 2, 2),
    ));

  for (const chunkSize of [1, 2, 5, 9]) {
    for (const save of ['input', 'gateUp'] as const) {
      it(`chunkedMlp, chunks of ${chunkSize}, saving ${save}`, () =>
        checkGradients(
          (x, g, u, d) => chunkedMlp(x, g, u, d, { chunkSize, save }),
          [
            [5, 3],
            [4, 3],
            [4, 3],
            [3, 4],
          ],
        ));
    }
  }
  it('chunkedMlp with geluTanh', () =>
    checkGradients(
      (x, g, u, d) => chunkedMlp(x, g, u, d, { chunkSize: 2, activation: 'geluTanh' }),
      [
        [5, 3],
        [4, 3],
        [4, 3],
        [3, 4],
      ],
    ));

  const targets = () => ids(1, -100, 4, 0, 6, 2, -100);
  const N = 7;
  const V = 7;
  const C = 3;
  it('crossEntropy', () => checkGradients((x) => crossEntropy(x, targets()).loss, [[N, V]]));
  const variants = {
    plain: {},
    'label smoothing': { labelSmoothing: 0.1 },
    'z-loss': { zLoss: 0.01 },
    'soft-cap': { softcap: 2 },
    sum: { reduction: 'sum' },
    divisor: { divisor: 3.5 },
    everything: { labelSmoothing: 0.2, zLoss: 0.02, softcap: 3, divisor: 4 },
  } as const;
  for (const [name, options] of Object.entries(variants)) {
    it(`crossEntropy: ${name}`, () => checkGradients((x) => crossEntropy(x, targets(), options).loss, [[N, V]]));
    for (const chunkSize of [1, 3, N + 5]) {
      it(`chunkedCrossEntropy: ${name}, chunks of ${chunkSize}`, () =>
        checkGradients(
          (h, w) => chunkedCrossEntropy(h, w, targets(), { ...options, chunkSize }).loss,
          [
            [N, C],
            [V, C],
          ],
        ));
    }
  }
  it('chunkedCrossEntropy with token weights', () =>
    checkGradients(
      (h, w) => {
        const tokenWeights = tensor(
          Array.from({ length: N }, (_, n) => 0.5 + n / 4),
          { dtype: h.dtype === 'float64' ? 'float64' : 'float32', device: debugDevice() },
        );
        return chunkedCrossEntropy(h, w, targets(), { tokenWeights, chunkSize: 2 }).loss;
      },
      [
        [N, C],
        [V, C],
      ],
    ));
  it('chunkedCrossEntropy inside arithmetic, so that the incoming scalar is not 1', () =>
    checkGradients(
      (h, w) => scale(chunkedCrossEntropy(h, w, targets(), { chunkSize: 3 }).loss, -2.5),
      [
        [N, C],
        [V, C],
      ],
    ));
  it('a head tied to the embedding adds both uses', () =>
    checkGradients(
      (w) => chunkedCrossEntropy(embedding(w, ids(3, 1, 1, 0)), w, ids(1, 1, 0, 4), { chunkSize: 3 }).loss,
      [[5, 3]],
    ));

  it('recompute', () =>
    checkGradients(
      (x, w, g) => recompute((x) => add(x, swiglu(linear(rmsNorm(x, g, { eps: 1e-5 }), w), x)), [x]),
      [[4, 3], [3, 3], [3]],
    ));
  it('recompute that keeps attention', () =>
    checkGradients(
      (x, w) =>
        recompute((x) => linear(attention(x, x, linear(x, w), { T: 4, headSize: 2 }), w), [x], { keep: ['attention'] }),
      [
        [4, 4],
        [4, 4],
      ],
    ));
  it('recompute inside recompute', () =>
    checkGradients(
      (x, w) =>
        recompute(
          (x) =>
            linear(
              recompute((x) => swiglu(linear(x, w), x), [x]),
              w,
            ),
          [x],
        ),
      [
        [4, 3],
        [3, 3],
      ],
    ));
  for (const chunkSize of [1, 2, 5, 8]) {
    it(`miniSequence, chunks of ${chunkSize}`, () =>
      checkGradients(
        (x, g, u, d) => miniSequence((x) => linear(swiglu(linear(x, g), linear(x, u)), d), x, { chunkSize }),
        [
          [5, 3],
          [4, 3],
          [4, 3],
          [2, 4],
        ],
      ));
  }
  it('miniSequence inside recompute', () =>
    checkGradients(
      (x, w) =>
        recompute(
          (x) =>
            linear(
              miniSequence((x) => swiglu(linear(x, w), x), x, { chunkSize: 2 }),
              w,
            ),
          [x],
        ),
      [
        [5, 3],
        [3, 3],
      ],
    ));
  it('chunkedCrossEntropy inside recompute', () =>
    checkGradients(
      (x, w) => recompute((x) => chunkedCrossEntropy(linear(x, w), w, ids(1, 0, 2), { chunkSize: 2 }).loss, [x]),
      [
        [3, 3],
        [3, 3],
      ],
    ));
});
