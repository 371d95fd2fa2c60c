// Contracts of ops, without the checks of lib/ops before them: operands whose shapes or dtypes do not go together are an error of the result
// that names the op and both operands; nothing outside of tensors is written.
import assert from 'node:assert/strict';
import { type Device, type Dtype, type Tensor, tidy, zeros } from '../../lib/index.ts';
import { kernels } from '../../lib/runtime/native.ts';
import { openTestDevice } from '../support/devices.ts';

const silu = 0;
const scores = { T: 4, D: 2, scale: 1, window: 0, softcap: 0 };
const lossOptions = { ignoreIndex: -100, labelSmoothing: 0, zLoss: 0, softcap: 0 };
/** How heads of D columns turn. */
const rotation = (D: number) => ({
  T: 4,
  D,
  scale: 1,
  isInterleaved: false,
  isInverse: false,
  growth: 0,
  growthPositions: 1,
});
const noOutputs = { lse: null, logProbability: null, entropy: null, correct: null };
const noGradients = { scale: 1, dhidden: null, dweight: null, dlow: null, dlowWeight: null };

/** What is wrong, the call, which returns what it should have written, and the error. */
type Make = (shape: number[], dtype?: Dtype) => Tensor;
const calls: [string, (of: Make) => Tensor, RegExp][] = [
  ...attentionCalls(),
  [
    "rope's y",
    (of) => {
      const y = of([3, 4]);
      kernels.rope(of([4, 4]), of([1], 'float64'), null, y, rotation(2));
      return y;
    },
    /rope: y float32\(3,4\) must be \(4,4\) for x float32\(4,4\)/,
  ],
  [
    'frequencies of more than a head',
    (of) => {
      const y = of([4, 8]);
      kernels.rope(of([4, 8]), of([2], 'float64'), null, y, rotation(2));
      return y;
    },
    /rope: 4 rotated columns are more than a head's 2/,
  ],
  [
    'too few documents',
    (of) => {
      const y = of([4, 4]);
      kernels.rope(of([4, 4]), of([1], 'float64'), of([3], 'int32'), y, rotation(2));
      return y;
    },
    /rope: document_start int32\(3\) must be \(4\) for x float32\(4,4\)/,
  ],
  [
    'rows of an embedding',
    (of) => {
      const y = of([2, 4]);
      kernels.embedding_forward(of([5, 4]), of([3], 'int32'), y);
      return y;
    },
    /embedding_forward: y float32\(2,4\) must be \(3,4\) for ids int32\(3\)/,
  ],
  [
    'columns of its gradient',
    (of) => {
      const dweight = of([5, 3]);
      kernels.embedding_backward(of([3, 4]), of([3], 'int32'), dweight, of([12]));
      return dweight;
    },
    /embedding_backward: dy float32\(3,4\) must be \(3,3\) for ids int32\(3\)/,
  ],
  [
    'a sum of several elements',
    (of) => {
      const sum = of([2]);
      kernels.sum_of_squares(of([4, 4]), sum, of([4], 'float64'));
      return sum;
    },
    /sum_of_squares: sum float32\(2\) must be \(1\) for x float32\(4,4\)/,
  ],
  [
    'partial sums in f32',
    (of) => {
      const sum = of([1]);
      kernels.sum_of_squares(of([4, 4]), sum, of([4]));
      return sum;
    },
    /sum_of_squares: partials float32\(4\) must be float64/,
  ],
  [
    'dup of a gated unit',
    (of) => {
      const dgate = of([2, 8]);
      kernels.glu_backward(of([2, 8]), of([2, 8]), of([2, 8]), dgate, of([2, 4]), null, silu);
      return dgate;
    },
    /glu_backward: dup float32\(2,4\) must be \(2,8\) for gate float32\(2,8\)/,
  ],
  [
    'a row of a gated unit',
    (of) => {
      const y = of([2, 8]);
      kernels.glu_forward(of([3, 8]), of([3, 8]), y, silu);
      return y;
    },
    /glu_forward: y float32\(2,8\) must be \(3,8\) for gate float32\(3,8\)/,
  ],
  [
    'dy of a norm',
    (of) => {
      const dx = of([4, 8]);
      kernels.rms_norm_backward(of([2, 8]), of([4, 8]), of([8]), dx, null, null, 1e-5, 0);
      return dx;
    },
    /rms_norm_backward: dy float32\(2,8\) must be \(4,8\) for x float32\(4,8\)/,
  ],
  [
    'columns of a bias',
    (of) => {
      const dbias = of([8]);
      kernels.bias_backward(of([4, 8]), dbias, of([2, 4]));
      return dbias;
    },
    /bias_backward: partials float32\(2,4\) must be \(2,8\) for dy float32\(4,8\)/,
  ],
  [
    'dx of a soft-cap',
    (of) => {
      const dx = of([1, 4]);
      kernels.softcap_backward(of([2, 4]), of([2, 4]), dx, 3);
      return dx;
    },
    /softcap_backward: dx float32\(1,4\) must be \(2,4\) for y float32\(2,4\)/,
  ],
  [
    'a factor of another dtype',
    (of) => {
      const y = of([4]);
      kernels.scale_by(of([4]), of([1], 'bfloat16'), null, y);
      return y;
    },
    /scale_by: factor bfloat16\(1\) must be float32/,
  ],
  [
    'weights of an MLP',
    (of) => {
      const y = of([4, 8]);
      const weights = { gate: of([6, 8]), up: of([6, 8]), down: of([6, 8]) };
      const adapters = mlpAdapters;
      kernels.chunked_mlp_forward(of([4, 8]), weights, y, gateUp(of([2, 12])), of([2, 6]), of([8]), silu, adapters);
      return y;
    },
    /chunked_mlp_forward: down float32\(6,8\) must be \(8,6\) for gate float32\(6,8\)/,
  ],
  [
    'too few rows of gate and up',
    (of) => {
      const y = of([4, 8]);
      const weights = { gate: of([6, 8]), up: of([6, 8]), down: of([8, 6]) };
      const kept = { memory: of([2, 12]), isKept: true };
      kernels.chunked_mlp_forward(of([4, 8]), weights, y, kept, of([2, 6]), of([8]), silu, mlpAdapters);
      return y;
    },
    /chunked_mlp_forward: gate_up float32\(2,12\) must be \(4,12\) for x float32\(4,8\)/,
  ],
  [
    'a gradient of an MLP',
    (of) => {
      const dx = of([4, 8]);
      const weights = { gate: of([6, 8]), up: of([6, 8]), down: of([8, 6]) };
      const gradients = { dx, dgate: null, dup: { gradient: of([5, 8]), overwrite: true }, ddown: null };
      const dy = of([4, 8]);
      kernels.chunked_mlp_backward(
        dy,
        of([4, 8]),
        weights,
        gradients,
        gateUp(of([2, 12])),
        of([2, 6]),
        of([8]),
        silu,
        mlpAdapters,
      );
      return dx;
    },
    /chunked_mlp_backward: dup float32\(5,8\) must be \(6,8\) for its weight float32\(6,8\)/,
  ],
  [
    'too few targets',
    (of) => {
      const losses = of([3]);
      const targets = { ids: of([2], 'int32'), weights: null };
      kernels.cross_entropy(of([3, 5]), targets, { losses, ...noOutputs }, lossOptions, 0, false);
      return losses;
    },
    /cross_entropy: targets int32\(2\) must be \(3\) for logits float32\(3,5\)/,
  ],
  [
    'the entropy of too few tokens',
    (of) => {
      const losses = of([3]);
      const outputs = { losses, ...noOutputs, entropy: of([2]) };
      kernels.cross_entropy(of([3, 5]), { ids: of([3], 'int32'), weights: null }, outputs, lossOptions, 0, false);
      return losses;
    },
    /cross_entropy: entropy float32\(2\) must be \(3\) for logits float32\(3,5\)/,
  ],
  [
    'logits of another vocabulary',
    (of) => {
      const losses = of([3]);
      const targets = { ids: of([3], 'int32'), weights: null };
      const head = { weight: of([9, 4]), lowRank: null };
      const outputs = { losses, ...noOutputs };
      kernels.chunked_cross_entropy(of([3, 4]), head, targets, outputs, noGradients, of([2, 8]), of([8]), lossOptions);
      return losses;
    },
    /chunked_cross_entropy: logits float32\(2,8\) cannot hold a row for weight float32\(9,4\)/,
  ],
  [
    'dhidden of too few rows',
    (of) => {
      const losses = of([3]);
      const targets = { ids: of([3], 'int32'), weights: null };
      const head = { weight: of([9, 4]), lowRank: null };
      const gradients = { ...noGradients, dhidden: of([2, 4]) };
      const outputs = { losses, ...noOutputs };
      kernels.chunked_cross_entropy(of([3, 4]), head, targets, outputs, gradients, of([2, 9]), of([8]), lossOptions);
      return losses;
    },
    /chunked_cross_entropy: dhidden float32\(2,4\) must be \(3,4\) for hidden float32\(3,4\)/,
  ],
];

const mlpAdapters = {
  gate: null,
  up: null,
  down: null,
  scratch: null,
  dropout: { probability: 0, seed: 0, step: 0 },
};

function gateUp(memory: Tensor) {
  return { memory, isKept: false };
}

function attentionCalls(): typeof calls {
  const forward =
    (q: number[], k: number[], out: number[], lse: number[], options = scores) =>
    (of: Make) => {
      const y = of(out);
      const inputs = { q: of(q), k: of(k), v: of(k), documentStart: null };
      kernels.attention_forward(inputs, y, of(lse), null, options);
      return y;
    };
  return [
    [
      'rows of k',
      forward([4, 4], [3, 4], [4, 4], [1, 2, 4]),
      /attention_forward: k float32\(3,4\) must be \(4,4\) for q float32\(4,4\)/,
    ],
    [
      'rows of out',
      forward([4, 4], [4, 4], [3, 4], [1, 2, 4]),
      /attention_forward: out float32\(3,4\) must be \(4,4\) for q float32\(4,4\)/,
    ],
    [
      'too few log-sum-exps',
      forward([4, 4], [4, 4], [4, 4], [1, 1, 4]),
      /attention_forward: lse float32\(1,1,4\) must be \(8\) for q float32\(4,4\)/,
    ],
    [
      'sequences that are not whole',
      forward([5, 4], [5, 4], [5, 4], [1, 2, 5]),
      /attention_forward: the rows of q float32\(5,4\) must be whole sequences of 4/,
    ],
    [
      'heads that are not whole',
      forward([4, 4], [4, 4], [4, 4], [1, 2, 4], { ...scores, D: 3 }),
      /attention_forward: q float32\(4,4\) and k float32\(4,4\) must have whole heads of 3 columns/,
    ],
    [
      'more heads of k than of q',
      forward([4, 4], [4, 8], [4, 4], [1, 2, 4]),
      /attention_forward: the number of heads of q float32\(4,4\) must be a multiple of that of k float32\(4,8\)/,
    ],
    [
      'a gradient of keys',
      (of) => {
        const dq = of([4, 4]);
        const inputs = { q: of([4, 4]), k: of([4, 2]), v: of([4, 2]), documentStart: null };
        const gradients = { dq, dk: of([4, 1]), dv: of([4, 2]) };
        kernels.attention_backward(of([4, 4]), inputs, of([4, 4]), of([1, 2, 4]), gradients, null, scores);
        return dq;
      },
      /attention_backward: dk float32\(4,1\) must be \(4,2\) for k float32\(4,2\)/,
    ],
    [
      'a position beyond the kept keys',
      (of) => {
        const out = of([2, 4]);
        const inputs = { q: of([2, 4]), k: of([4, 4]), v: of([4, 4]), documentStart: null };
        kernels.cached_attention(inputs, out, 3, scores);
        return out;
      },
      /cached_attention: position 3 and 2 queries go beyond the 4 rows of k float32\(4,4\)/,
    ],
  ];
}

describe('contracts of ops', () => {
  let device: Device;
  before(() => {
    device = openTestDevice({ debug: true });
  });
  after(() => device.close());

  for (const [what, call, message] of calls) {
    it(`refuse ${what}`, () =>
      tidy(async () => {
        const made = call((shape, dtype = 'float32') => zeros(shape, { dtype, device }));
        await assert.rejects(made.data(), message);
        await device.synchronize(); // no red zone has been written
      }));
  }
});
