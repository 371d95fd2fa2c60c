// Numbers of options that are none, or would be cut off: refused by name, on meta as on the CPU, so that no plan takes what the run refuses.
import assert from 'node:assert/strict';
import {
  AdamW,
  attention,
  chunkedMlp,
  crossEntropy,
  Decoder,
  type Device,
  dropout,
  openDevice,
  rmsNorm,
  rope,
  tidy,
  zeros,
} from '../../lib/index.ts';

const vector = [4, 4] as const;
const numbers: [string, (value: never, on: { device: Device }) => unknown, unknown[]][] = [
  [
    'attention: window',
    (window, on) => attention(zeros(vector, on), zeros(vector, on), zeros(vector, on), { T: 4, headSize: 4, window }),
    [-1, 1.5, 2 ** 53],
  ],
  [
    'attention: T',
    (T, on) => attention(zeros(vector, on), zeros(vector, on), zeros(vector, on), { T, headSize: 4 }),
    [0, 2.5],
  ],
  [
    'rope: T',
    (T, on) => rope(zeros(vector, on), { inverseFrequencies: zeros([2], { ...on, dtype: 'float64' }) }, T),
    [0, -1, 0.5],
  ],
  [
    'rope: scale',
    (scale, on) => rope(zeros(vector, on), { inverseFrequencies: zeros([2], { ...on, dtype: 'float64' }), scale }, 4),
    [Infinity],
  ],
  [
    'rmsNorm: weightOffset',
    (weightOffset, on) => rmsNorm(zeros(vector, on), zeros([4], on), { eps: 1, weightOffset }),
    [Infinity],
  ],
  [
    'dropout: dropout probability',
    (probability, on) => dropout(zeros(vector, on), { probability, seed: 0, step: 0 }, 0),
    [1, -0.1],
  ],
  [
    'dropout: dropout seed',
    (seed, on) => dropout(zeros(vector, on), { probability: 0.5, seed, step: 0 }, 0),
    [0.5, 2 ** 53],
  ],
  [
    'dropout: dropout step',
    (step, on) => dropout(zeros(vector, on), { probability: 0.5, seed: 0, step }, 0),
    [-1, 0.5, 2 ** 32],
  ],
  [
    'dropout: op',
    (op, on) => dropout(zeros(vector, on), { probability: 0.5, seed: 0, step: 0 }, op),
    [-1, 0.5, 2 ** 32],
  ],
  [
    'adapters: dropout probability',
    (probability, on) =>
      chunkedMlp(zeros(vector, on), zeros(vector, on), zeros(vector, on), zeros(vector, on), {
        dropout: { probability, seed: 0, step: 0 },
      }),
    [2],
  ],
  [
    'crossEntropy: ignoreIndex',
    (ignoreIndex, on) => crossEntropy(zeros(vector, on), zeros([4], { ...on, dtype: 'int32' }), { ignoreIndex }),
    [0.5, 2 ** 31],
  ],
  ['AdamW: seed', (seed, on) => new AdamW([zeros([1], on)], { seed }), [0.5, 2 ** 53]],
  ['initialize: seed', (seed) => Decoder.prototype.initialize.call(null, seed), [0.5, 2 ** 53]],
];
describe('numbers that are none', () => {
  for (const [what, call, wrong] of numbers) {
    it(`are refused: ${what}`, () => {
      for (const name of ['cpu', 'meta'] as const) {
        using device = openDevice(name);
        for (const value of [...wrong, Number.NaN, -Infinity, '1', true, {}]) {
          tidy(() =>
            assert.throws(
              () => call(value as never, { device }),
              new RegExp(`RangeError: ${what} must be`),
              `${value}`,
            ),
          );
        }
      }
    });
  }
});
