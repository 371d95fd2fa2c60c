// onGradient: called once for every parameter, when its gradient is what it stays.
import assert from 'node:assert/strict';
import {
  add,
  addLora,
  chunkedMlp,
  Decoder,
  decoderConfig,
  type GradientDtype,
  linear,
  miniSequence,
  nextTokenLoss,
  Parameter,
  recompute,
  rmsNorm,
  type StepPolicy,
  scale,
  Tape,
  type Tensor,
  type TensorData,
  tensor,
  tidy,
} from '../../lib/index.ts';
import { LORA_MODULES } from '../../lib/models/adapter.ts';
import { debugDevice, leavingNothing } from '../support/devices.ts';
import { integers, normals } from '../support/random.ts';
import { tinyLlama } from '../support/runs.ts';

const device = () => debugDevice();

/** Gradients by name when they are told, in this order, and when a backward without onGradient has ended. Frees them in both. */
async function toldAndFinal(parameters: readonly Parameter[], run: () => Tensor) {
  const told: [string, Promise<TensorData>][] = [];
  const backward = (onGradient?: (parameter: Parameter) => void) => {
    const tape = new Tape();
    const y = tape.run(run);
    tidy(() => {
      const { shape, dtype, size } = y;
      const dy = size === 1 ? null : tensor(normals(size, 5), { shape, dtype, device: device() });
      tape.backward(y, dy, { onGradient });
    });
    y.dispose();
  };
  backward((parameter) => {
    told.push([parameter.name!, parameter.grad!.data()]);
    parameter.zeroGrad(); // as an optimizer would
  });
  for (const { grad, reservedGrad } of parameters) assert.deepEqual([grad, reservedGrad], [null, null]);
  backward();
  const final = new Map<string, TensorData>();
  for (const parameter of parameters) {
    if (parameter.grad) final.set(parameter.name!, await parameter.grad.data());
    parameter.zeroGrad();
  }
  const found = await Promise.all(told.map(async ([name, data]) => [name, await data] as const));
  return { found, final };
}

async function check(parameters: readonly Parameter[], run: () => Tensor): Promise<string[]> {
  const { found, final } = await toldAndFinal(parameters, run);
  const names = found.map(([name]) => name);
  assert.deepEqual([...names].sort(), [...final.keys()].sort(), 'each that has a gradient, once');
  for (const [name, data] of found) assert.deepEqual(data, final.get(name), name);
  return names;
}

const policies: StepPolicy[] = [
  { mlpChunkSize: 100, lossChunkSize: 100, mlpSave: 'gateUp', recompute: 'none' },
  { mlpChunkSize: 7, lossChunkSize: 11, mlpSave: 'input', recompute: 'attention' },
  { mlpChunkSize: 13, lossChunkSize: 5, mlpSave: 'input', recompute: 'layer' },
  { mlpChunkSize: 13, lossChunkSize: 5, mlpSave: 'input', recompute: 'segments' },
  { mlpChunkSize: 7, lossChunkSize: 11, mlpSave: 'input', recompute: 'attentionSegments' },
];

describe('onGradient', () => {
  for (const policy of policies) {
    for (const gradientDtype of ['float32', 'bfloat16'] as GradientDtype[]) {
      for (const isTied of [false, true]) {
        for (const hasLora of [false, true]) {
          const of = `${isTied ? 'a tied' : 'its own'} head${hasLora ? ', adapters' : ''}`;
          it(`of a model: recompute ${policy.recompute}, ${gradientDtype} gradients, ${of}`, () =>
            leavingNothing(device(), async () => {
              const config = decoderConfig({ ...tinyLlama, num_hidden_layers: 3, tie_word_embeddings: isTied });
              using model = new Decoder(config, { device: device(), dtype: 'bfloat16', gradientDtype }).initialize(1);
              if (hasLora) addLora(model, { rank: 2, modules: LORA_MODULES });
              using inputs = tensor(integers(24, 256, 1), { device: device() });
              using targets = tensor(integers(24, 256, 2), { device: device() });
              const batch = { inputs, targets, T: 12 };
              const names = await check(
                model.parameters(),
                () => nextTokenLoss(model, batch, { policy, divisor: 24 }).loss,
              );
              assert.equal(names.length, model.trainableParameters().length);
              if (hasLora) return;
              assert.equal(names.at(-1), 'model.embed_tokens.weight');
              if (!isTied) assert.equal(names[0], 'lm_head.weight');
            }));
        }
      }
    }
  }

  for (const gradientDtype of ['float32', 'bfloat16'] as GradientDtype[]) {
    const make = (name: string, shape: number[], seed: number) => {
      const values = Float32Array.from(
        normals(
          shape.reduce((a, b) => a * b),
          seed,
        ),
      );
      return new Parameter(tensor(values, { shape, dtype: 'bfloat16', device: device() }), { name, gradientDtype });
    };

    it(`of parameters inside chunks, inside them twice, and outside as well, ${gradientDtype}`, () =>
      leavingNothing(device(), async () => {
        const x = make('x', [10, 8], 1);
        const [w, gate, up, down] = [
          [8, 8],
          [12, 8],
          [12, 8],
          [8, 12],
        ].map((shape, i) => make(['w', 'gate', 'up', 'down'][i]!, shape, 2 + i)) as [
          Parameter,
          Parameter,
          Parameter,
          Parameter,
        ];
        const norm = make('norm', [8], 7);
        for (const member of [gate, up]) member.group = [gate, up];
        const block = (rows: Tensor) =>
          recompute(
            (rows) =>
              add(linear(rows, w), chunkedMlp(rmsNorm(rows, norm, { eps: 1 }), gate, up, down, { chunkSize: 2 })),
            [rows],
          );
        const names = await check([x, w, gate, up, down, norm], () =>
          tidy(() => miniSequence((rows) => block(block(rows)), linear(scale(x, 2), w), { chunkSize: 4 })),
        );
        assert.deepEqual(names.slice(-2), ['w', 'x']);
        for (const each of [x, w, gate, up, down, norm]) each.dispose();
      }));

    it(`of a parameter that is an input of a region, and of branches that the output does not depend on, ${gradientDtype}`, () =>
      leavingNothing(device(), async () => {
        const [x, w, unused] = [make('x', [5, 8], 1), make('w', [8, 8], 2), make('unused', [8, 8], 3)];
        const names = await check([x, w, unused], () =>
          tidy(() => {
            const y = recompute((x, w) => linear(x, w), [x, w]);
            recompute((x) => miniSequence((rows) => linear(linear(rows, w), unused), x, { chunkSize: 2 }), [y]);
            linear(y, w);
            return scale(y, 2);
          }),
        );
        assert.deepEqual(names, ['x', 'w']);
        for (const each of [x, w, unused]) each.dispose();
      }));
  }

  it('frees everything when the callback throws', () =>
    leavingNothing(device(), () => {
      const w = new Parameter(tensor([1, 2, 3, 4], { shape: [2, 2], device: device() }));
      const tape = new Tape();
      const y = tape.run(() => tidy(() => linear(linear(w, w), w)));
      const onGradient = () => {
        throw new Error('on purpose');
      };
      assert.throws(() => tidy(() => tape.backward(y, y, { onGradient })), /on purpose/);
      for (const each of [y, w]) each.dispose();
    }));
});
