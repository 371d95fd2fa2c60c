// Misuse, threads and the event loop: an error names the op, the argument and both values; nothing crashes or blocks.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { promisify } from 'node:util';
import { Worker } from 'node:worker_threads';
import {
  AdamW,
  add,
  attention,
  chunkedCrossEntropy,
  chunkedMlp,
  Decoder,
  decoderConfig,
  embedding,
  linear,
  openDevice,
  Parameter,
  rmsNorm,
  rope,
  type StepPolicy,
  swiglu,
  TrainStep,
  tensor,
  tidy,
  zeros,
} from '../../lib/index.ts';
import { endWorkers } from '../support/ended_workers.ts';

const ids = (...values: number[]) => tensor(Int32Array.from(values));

describe('misuse', () => {
  const misuses: [string, () => unknown, RegExp][] = [
    ['inner sizes', () => linear(zeros([2, 3]), zeros([4, 5])), /linear: x \(2,3\) and weight \(4,5\) disagree/],
    [
      'dtypes',
      () => linear(zeros([2, 3]), zeros([4, 3], { dtype: 'bfloat16' })),
      /linear: x is float32, weight bfloat16/,
    ],
    ['shapes', () => add(zeros([2, 3]), zeros([3, 2])), /add: b must be \(2,3\), got \(3,2\)/],
    [
      'integers where floats belong',
      () => swiglu(ids(1), ids(1)),
      /swiglu: gate must be float32 or bfloat16 or float64, got int32/,
    ],
    [
      'floats where ids belong',
      () => embedding(zeros([3, 2]), zeros([2])),
      /embedding: ids must be int32, got float32/,
    ],
    [
      'a weight of another size',
      () => rmsNorm(zeros([2, 3]), zeros([4]), { eps: 1e-5 }),
      /rmsNorm: x has 3 columns, not a multiple of weight's 4/,
    ],
    [
      'eps',
      () => rmsNorm(zeros([2, 3]), zeros([3]), { eps: Number.NaN }),
      /rmsNorm: eps must be a number in \[0, Infinity\], got NaN/,
    ],
    [
      'heads',
      () => attention(zeros([4, 6]), zeros([4, 4]), zeros([4, 4]), { T: 4, headSize: 2 }),
      /attention: the number of query heads, 3, must be a multiple of the number of key\/value heads, 2/,
    ],
    [
      'rows',
      () => attention(zeros([5, 4]), zeros([5, 4]), zeros([5, 4]), { T: 4, headSize: 2 }),
      /attention: q has 5 rows, not a multiple of T 4/,
    ],
    [
      'positions',
      () => rope(zeros([4, 6]), { inverseFrequencies: zeros([2], { dtype: 'float64' }) }, 4),
      /rope: x has 6 columns, not a multiple of the head size 4/,
    ],
    [
      'MLP weights',
      () => chunkedMlp(zeros([2, 3]), zeros([4, 3]), zeros([5, 3]), zeros([3, 4])),
      /chunkedMlp: up must be \(4,3\), got \(5,3\)/,
    ],
    [
      'chunk size',
      () => chunkedMlp(zeros([2, 3]), zeros([4, 3]), zeros([4, 3]), zeros([3, 4]), { chunkSize: 0 }),
      /chunkSize must be a positive integer, got 0/,
    ],
    [
      'hidden sizes',
      () => chunkedCrossEntropy(zeros([2, 3]), zeros([5, 4]), ids(0, 1)),
      /hidden \(2,3\) and weight \(5,4\) disagree/,
    ],
    [
      'numbers of targets',
      () => chunkedCrossEntropy(zeros([2, 3]), zeros([5, 3]), ids(0)),
      /targets \(1\) has 1 elements for 2 rows/,
    ],
    [
      'label smoothing',
      () => chunkedCrossEntropy(zeros([1, 3]), zeros([5, 3]), ids(0), { labelSmoothing: 2 }),
      /labelSmoothing must be a number in \[0, 1\], got 2/,
    ],
    ['shape and data', () => tensor([1, 2, 3], { shape: [2, 2] }), /shape \(2,2\) has 4 elements, data has 3/],
    [
      'rank',
      () => zeros([1, 1, 1, 1, 1]),
      /a shape has at most 4 lengths, each an integer of 0 or more, got \(1,1,1,1,1\)/,
    ],
    ['negative lengths', () => zeros([-1]), /integer of 0 or more, got \(-1\)/],
    ['device names', () => zeros([1], { device: 'gpu' as never }), /'gpu' is none of/],
    ['devices', () => add(zeros([1]), zeros([1], { device: 'meta' })), /add: b is on meta, a on cpu/],
    [
      'disposed tensors',
      () => {
        const x = zeros([1]);
        x.dispose();
        return add(x, x);
      },
      /used after dispose\(\)/,
    ],
    [
      'learning rate',
      () => new AdamW([new Parameter(zeros([1]))]).step(Number.NaN),
      /AdamW: learningRate must be a number in \[0, Infinity\], got NaN/,
    ],
    ['rows of a view', () => zeros([3, 2]).rows(2, 4), /rows: \[2, 4\) is not within the 3 rows/],
    ['model type', () => decoderConfig({ model_type: 'gpt2' }), /model_type 'gpt2' is none of llama/],
    [
      'config fields',
      () => decoderConfig({ model_type: 'llama', hidden_size: 'big' }),
      /hidden_size must be a number, got "big"/,
    ],
    [
      'config that would change the numbers',
      () => decoderConfig({ model_type: 'llama', mlp_bias: true }),
      /mlp_bias must be false, got true/,
    ],
  ];
  for (const [what, misuse, message] of misuses) {
    it(`${what}: ${message.source.slice(0, 50)}`, () => {
      tidy(() => assert.throws(misuse, message));
    });
  }

  it('an id out of range rejects reads of the result with op, row, id and V, and the device goes on', async () => {
    using device = openDevice('cpu');
    const on = { device };
    const weight = zeros([4, 2], on);
    for (const wrong of [4, -1, 2 ** 31 - 1]) {
      const y = embedding(weight, tensor(Int32Array.of(0, wrong), on));
      await assert.rejects(y.data(), new RegExp(`embedding_forward.*row 1.*${wrong}.*4`));
      const loss = chunkedCrossEntropy(zeros([2, 2], on), weight, tensor(Int32Array.of(wrong, 1), on)).loss;
      await assert.rejects(loss.data(), new RegExp(`row 0.*${wrong}.*4`));
    }
    assert.equal(
      await chunkedCrossEntropy(zeros([1, 2], on), weight, tensor(Int32Array.of(3), on)).loss.item(),
      Math.fround(Math.log(4)),
    );
  });
});

const config = decoderConfig({
  model_type: 'llama',
  hidden_size: 256,
  intermediate_size: 704,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  vocab_size: 4096,
});
const policy: StepPolicy = { mlpChunkSize: 512, lossChunkSize: 512, mlpSave: 'input', recompute: 'attention' };

describe('event loop', () => {
  it('lags under 50 ms while a step runs', async () => {
    using device = openDevice('cpu');
    const T = 2048;
    using model = new Decoder(config, { device }).initialize(0);
    using optimizer = new AdamW(model.trainableParameters());
    const tokens = Int32Array.from({ length: T }, (_, i) => i % 4096);
    using trainStep = new TrainStep(model, optimizer, { policy });
    const step = () => trainStep.run([{ inputs: tokens, targets: tokens }], { learningRate: 1e-3 });
    await (await step()).loss;
    const delay = monitorEventLoopDelay({ resolution: 5 });
    delay.enable();
    const { loss } = await step();
    assert.ok(Number.isFinite(await loss));
    delay.disable();
    assert.ok(delay.max / 1e6 < 50 + 5, `the event loop stood still for ${delay.max / 1e6} ms`);
  });
});

describe('threads and processes', () => {
  const script = `
    import { tensor, scale } from '${new URL('../../dist/index.js', import.meta.url).href}';
    const y = scale(tensor([1, 2, 3]), 2);
    const result = [...(await y.data())];
  `;

  it('three workers in a row use the addon', async () => {
    for (let i = 0; i < 3; i++) {
      const code = `${script}\nimport { parentPort } from 'node:worker_threads'; parentPort.postMessage(result);`;
      const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(code)}`));
      const result = await new Promise((resolve, reject) => {
        worker.once('message', resolve);
        worker.once('error', reject);
      });
      assert.deepEqual(result, [2, 4, 6]);
      await worker.terminate();
    }
  });

  const node = (code: string) => promisify(execFile)(process.execPath, ['--input-type=module', '-e', code]);

  for (const how of ['terminate', 'throw', 'exit'] as const) {
    it(`a worker that is stopped in the middle (${how}) does not affect other threads`, () => endWorkers(how, 4));
  }

  // Threads in libraries whose memory exit() takes away would end the process with SIGSEGV, in one of two cases where the machine is idle.
  for (const [how, code] of [
    ['process.exit(7)', 7],
    ["throw new Error('user bug')", 1],
    ['process.reallyExit(7)', 7],
  ] as const) {
    it(`${how} while products run ends the process with its exit code`, async () => {
      const program = `import * as ms from '${new URL('../../dist/index.js', import.meta.url).href}';
        const x = ms.zeros([512, 512]);
        for (let i = 0; i < 200; i++) ms.linear(x, x).dispose();
        const q = ms.zeros([256, 64]);
        for (let i = 0; i < 50; i++) ms.attention(q, q, q, { T: 256, headSize: 16 }).dispose();
        x.data().catch(() => {});
        setTimeout(() => { ${how}; }, Number(process.argv[1]));`;
      for (const milliseconds of ['0', '2', '5', '9', '14', '20']) {
        const { code: found, signal } = await promisify(execFile)(process.execPath, [
          '--input-type=module',
          '-e',
          program,
          milliseconds,
        ]).then(
          () => ({ code: 0, signal: null }),
          (error) => error,
        );
        assert.deepEqual([found, signal], [code, null]);
      }
    });
  }

  it('a handler of exit may still use tensors', async () => {
    const { stdout } = await node(`${script}
      process.on('exit', () => { y.dispose(); console.log('disposed'); });`);
    assert.equal(stdout, 'disposed\n');
  });

  it('a process with nothing left to do ends by itself', async () => {
    const { stdout } = await node(`${script} console.log(result.join());`);
    assert.equal(stdout, '2,4,6\n');
  });
});
