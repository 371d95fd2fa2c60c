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
  disposeResult,
  embedding,
  linear,
  openDevice,
  rmsNorm,
  rope,
  type StepPolicy,
  stepResult,
  swiglu,
  tensor,
  tidy,
  trainStep,
  zeros,
} from '../lib/index.ts';
import { addon } from '../lib/native.ts';
import { endWorkers } from './support/ended_workers.ts';

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
      /attention: 3 query heads are not a multiple of 2/,
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
      /targets \(1\) are 1, rows 2/,
    ],
    [
      'label smoothing',
      () => chunkedCrossEntropy(zeros([1, 3]), zeros([5, 3]), ids(0), { labelSmoothing: 2 }),
      /labelSmoothing must be a number in \[0, 1\], got 2/,
    ],
    ['shape and data', () => tensor([1, 2, 3], { shape: [2, 2] }), /shape \(2,2\) has 4 elements, data has 3/],
    ['rank', () => zeros([1, 1, 1, 1, 1]), /shape \(1,1,1,1,1\) is not at most 4 lengths/],
    ['negative lengths', () => zeros([-1]), /shape \(-1\)/],
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
      () => new AdamW([zeros([1])]).step(Number.NaN),
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

  it('the addon checks its own arguments', () => {
    const call = addon() as unknown as Record<string, (...args: unknown[]) => void>;
    assert.throws(() => call.add!(1), /takes 3 arguments, got 0/);
    assert.throws(() => call.add!('x', 1, 2, 3), /the device must be a number/);
    assert.throws(() => call.add!(12345, 1, 2, 3), /device 12345 is not open/);
    const x = zeros([1]);
    assert.throws(() => call.add!(x.device.id, x.view, x.view, 'y'), /add: argument 3 must be a tensor's view/);
    assert.throws(() => call.scale!(x.device.id, x.view, x.view, 'y'), /scale: argument 3 must be a number/);
    x.dispose();
  });

  // [address, dtype, device, row stride, rows, columns, -owner]
  const numbers: [string, number, (value: number) => number][] = [
    ['address NaN', 0, () => Number.NaN],
    ['address Infinity', 0, () => Infinity],
    ['address 2^64', 0, () => 2 ** 64],
    ['address -1', 0, () => -1],
    ['address 0', 0, () => 0],
    ['address with a fraction', 0, (address) => address + 0.5],
    ['address inside an element', 0, (address) => address + 1],
    ['address beyond the memory', 0, (address) => address + 2 ** 40],
    ['address before the memory', 0, (address) => address - 2 ** 20],
    ['dtype 4', 1, () => 4],
    ['dtype -1', 1, () => -1],
    ['dtype NaN', 1, () => Number.NaN],
    ['dtype 0.5', 1, () => 0.5],
    ['device NaN', 2, () => Number.NaN],
    ['another device', 2, (device) => device + 1],
    ['row stride NaN', 3, () => Number.NaN],
    ['row stride -8', 3, () => -8],
    ['row stride 7', 3, () => 7],
    ['row stride 2^53', 3, () => 2 ** 53],
    ['row stride beyond the memory', 3, () => 2 ** 50],
    ['rows NaN', 4, () => Number.NaN],
    ['rows Infinity', 4, () => Infinity],
    ['rows 2^63', 4, () => 2 ** 63],
    ['rows 2^52', 4, () => 2 ** 52],
    ['rows -1', 4, () => -1],
    ['rows 2.5', 4, () => 2.5],
    ['rows beyond the memory', 4, () => 2 ** 30],
    ['columns -1', 5, () => -1],
    ['columns 9', 5, () => 9],
  ];
  it("the addon refuses a tensor's view with a number that is none, before anything runs", async () => {
    using device = openDevice('cpu');
    using x = tensor(new Float32Array(32).fill(5), { shape: [4, 8], device }).keep();
    for (const [what, index, change] of numbers) {
      const view = Float64Array.from(x.view);
      view[index] = change(view[index]!);
      const arguments_: unknown[] = [view, 1];
      assert.throws(() => addon().fill!(device.id!, ...arguments_), /TypeError: fill: argument 1 must be/, what);
    }
    for (const view of [new Float64Array(3), new Float64Array(10), new Float32Array(7), [...x.view], null, 1]) {
      assert.throws(() => addon().fill!(device.id!, view, 1), /TypeError: fill: argument 1 must be a tensor's view/);
    }
    assert.deepEqual(await x.data(), new Float32Array(32).fill(5));
  });

  it('the addon refuses integers, enums and pieces of memory that are none', async () => {
    using device = openDevice('cpu');
    using x = tensor(new Float32Array(32).fill(5), { shape: [4, 8], device }).keep();
    const id = device.id!;
    const [address] = x.view as unknown as [number];
    const native = addon() as unknown as Record<string, (...args: unknown[]) => unknown>;
    const wrong = [Number.NaN, Infinity, -Infinity, 2 ** 53, 2 ** 63, 0.5, '1', null, undefined, 1n];
    for (const value of wrong) {
      const calls: [string, unknown[]][] = [
        ['random_normal', [id, x.view, 0, 1, value, 0, 0]],
        ['glu_forward', [id, x.view, x.view, x.view, value]],
        ['write', [id, value, new Uint8Array(4)]],
        ['write', [id, address, new Uint8Array(4), value ?? null]],
        ['read', [id, value, new Uint8Array(4)]],
        ['map', [id, value, 65536]],
        ['map', [id, address, value]],
        ['unmap', [id, value, 65536]],
        ['reserve', [id, value]],
        ['fill_bytes', [id, value, 0, 4]],
        ['fill_bytes', [id, address, value, 4]],
        ['fill_bytes', [id, address, 0, value]],
        ['check_bytes', [id, address, 5, value, 'what']],
        ['copy_within', [id, address, value, 4]],
        ['open_device', ['cpu', value, 1, 'own', 'own', '']],
        ['open_device', ['cpu', 0, value, 'own', 'own', '']],
        ['synchronize', [value]],
        ['close_device', [value]],
      ];
      for (const [name, args] of calls)
        assert.throws(() => native[name]!(...args), /Error: /, `${name} ${String(value)}`);
    }
    const pieces: [string, unknown[]][] = [
      ['glu_forward', [id, x.view, x.view, x.view, 2]],
      ['glu_forward', [id, x.view, x.view, x.view, -1]],
      ['write', [id, address + 2 ** 40, new Uint8Array(4)]],
      ['write', [id, address, new Uint8Array(2 ** 24)]],
      ['read', [id, 0, new Uint8Array(4)]],
      ['map', [id, address, 1]],
      ['map', [id, 0, 65536]],
      ['map', [id, address, 0]],
      ['unmap', [id, address + 2 ** 24, 65536]],
      ['copy_within', [id, address, address, 2 ** 24]],
      ['fill_bytes', [id, address, 256, 4]],
      ['open_device', ['gpu', 0, 1, 'own', 'own', '']],
      ['open_device', ['cpu', 0, 0, 'own', 'own', '']],
      ['open_device', ['cuda', 2 ** 32, 1, 'own', 'own', '']],
      ['set_cuda_library_path', ['/usr/lib']],
    ];
    for (const [name, args] of pieces) assert.throws(() => native[name]!(...args), /Error: /, name);
    assert.deepEqual(await x.data(), new Float32Array(32).fill(5));
  });

  it('a getter of an argument may close the device', () => {
    const device = openDevice('cpu');
    const [x, w, h] = [zeros([2, 2], { device }), zeros([2, 2], { device }), zeros([2, 4], { device })];
    const adapter = [w.view, w.view, null, null, 1, 0];
    Object.defineProperty(adapter, 1, { get: () => device.close() });
    const args = [x, w, w, w, x, h, h].map(({ view }) => view);
    const call = () => addon().chunked_mlp_forward!(device.id!, ...args, null, 0, adapter, null, null, null, 0, 0, 0);
    assert.throws(call, /chunked_mlp_forward: argument 10 must be a tensor's view/);
    for (const each of [x, w, h]) each.dispose();
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
    const batch = () => ({ inputs: tensor(tokens, { device }), targets: tensor(tokens, { device }), T });
    const result = stepResult(model);
    const step = () =>
      trainStep(model, optimizer, [batch], { policy, learningRate: 1e-3, maxGradNorm: 1, numTargets: T }, result);
    await step();
    await result.loss.item();
    const delay = monitorEventLoopDelay({ resolution: 5 });
    delay.enable();
    await step();
    assert.ok(Number.isFinite(await result.loss.item()));
    delay.disable();
    disposeResult(result);
    assert.ok(delay.max / 1e6 < 50 + 5, `the event loop stood still for ${delay.max / 1e6} ms`);
  });
});

describe('threads and processes', () => {
  const script = `
    import { tensor, scale } from '${new URL('../dist/index.js', import.meta.url).href}';
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
    it(`a worker that is ended in the middle (${how}) takes nothing with it`, () => endWorkers(how, 4));
  }

  // Threads in libraries whose memory exit() takes away would end the process with SIGSEGV, in one of two cases where the machine is idle.
  for (const [how, code] of [
    ['process.exit(7)', 7],
    ["throw new Error('user bug')", 1],
    ['process.reallyExit(7)', 7],
  ] as const) {
    it(`${how} with products under way ends the process with its code`, async () => {
      const program = `import * as ms from '${new URL('../dist/index.js', import.meta.url).href}';
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
