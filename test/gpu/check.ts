// Every op on CUDA against the CPU, parity with PyTorch, memory against `meta`: one command on a machine with a GPU.
//   node check.mjs FIXTURES [DEVICE]
// Exits 1 if a check fails. Bundled by scripts/bundle.mjs, so that it runs where no package can be installed.
import { argv, exit } from 'node:process';
import {
  AdamW,
  add,
  attention,
  type ChunkedCrossEntropyOptions,
  chunkedCrossEntropy,
  chunkedMlp,
  crossEntropy,
  Decoder,
  type Device,
  type DeviceName,
  type Dtype,
  decoderConfig,
  disposeResult,
  dropout,
  embedding,
  geglu,
  KeyValueCache,
  linear,
  loadModel,
  OutOfMemoryError,
  openDevice,
  rmsNorm,
  rope,
  scale,
  simulateStep,
  softcap,
  stepResult,
  swiglu,
  Tape,
  type Tensor,
  tensor,
  tidy,
  trainStep,
  zeros,
} from '../../lib/index.ts';
import { relativeError } from '../support/compare.ts';
import { parityCases, parityLimits, runParityCase } from '../support/parity.ts';
import { integers, normals } from '../support/random.ts';

const fixtures = argv[2];
if (!fixtures) throw new Error('usage: check FIXTURES [DEVICE]');
const deviceName = (argv[3] ?? 'cuda') as DeviceName;
const cuda = openDevice(deviceName);
const cpu = openDevice('cpu');
let numFailed = 0;

function report(what: string, error: number, limit: number): void {
  const passed = error <= limit;
  if (!passed) numFailed += 1;
  console.log(`${passed ? 'ok    ' : 'FAILED'} ${what.padEnd(64)} ${error.toExponential(1)}  limit ${limit}`);
}

type Case = (inputs: Tensor[], ints: (...values: number[]) => Tensor, device: Device) => Tensor;

/** Output and gradients of one op, on one device. */
async function run(device: Device, dtype: Dtype, shapes: number[][], fn: Case): Promise<Float32Array[]> {
  const ints = (...values: number[]) => tensor(Int32Array.from(values), { device });
  const leaves = shapes.map((shape, i) =>
    tensor(
      normals(
        shape.reduce((a, b) => a * b, 1),
        7 + i,
      ),
      { shape, dtype, device },
    ).asParameter(`input ${i}`),
  );
  const tape = new Tape();
  const output = tape.run(() => fn(leaves, ints, device));
  tidy(() =>
    tape.backward(output, tensor(normals(output.size, 99), { shape: [...output.shape], dtype: output.dtype, device })),
  );
  const results = [await output.toFloat32()];
  for (const leaf of leaves) if (leaf.grad) results.push(await leaf.grad.toFloat32());
  output.dispose();
  for (const leaf of leaves) leaf.dispose();
  return results;
}

/** CUDA in f32 against the CPU in f32; CUDA in bf16 against the CPU in bf16. */
async function compare(what: string, shapes: number[][], fn: Case): Promise<void> {
  for (const [dtype, limit] of [
    ['float32', 5e-6],
    ['bfloat16', 1.5e-2],
  ] as const) {
    try {
      const expected = await run(cpu, dtype, shapes, fn);
      const found = await run(cuda, dtype, shapes, fn);
      report(`${what}, ${dtype}`, Math.max(...found.map((each, i) => relativeError(each, expected[i]!))), limit);
    } catch (error) {
      numFailed += 1;
      console.log(`FAILED ${what}, ${dtype}: ${(error as Error).message}`);
    }
  }
}

for (const [N, I, O] of [
  [1, 1, 1],
  [3, 7, 5],
  [65, 33, 130],
  [257, 512, 384],
] as const) {
  await compare(
    `linear ${N}x${I}x${O}`,
    [
      [N, I],
      [O, I],
    ],
    ([x, w]) => linear(x!, w!),
  );
}
await compare('linear with bias', [[65, 33], [130, 33], [130]], ([x, w, b]) => linear(x!, w!, b!));
await compare('softcap', [[9, 130]], ([x]) => softcap(x!, 0.7));
await compare('dropout', [[9, 130]], ([x]) => dropout(x!, { probability: 0.3, seed: 5, step: 7 }, 9));
await compare('rmsNorm of heads', [[37, 6 * 80], [80]], ([x, w]) => rmsNorm(x!, w!, { eps: 1e-5 }));
for (const C of [2, 7, 64, 1025, 4096]) {
  await compare(`rmsNorm C ${C}`, [[37, C], [C]], ([x, w]) => rmsNorm(x!, w!, { eps: 1e-5, weightOffset: 1 }));
  await compare(
    `swiglu F ${C}`,
    [
      [9, C],
      [9, C],
    ],
    ([g, u]) => swiglu(g!, u!),
  );
  await compare(
    `geglu F ${C}`,
    [
      [9, C],
      [9, C],
    ],
    ([g, u]) => geglu(g!, u!),
  );
  await compare(`embedding C ${C}`, [[50, C]], ([w], ints) => embedding(w!, ints(...integers(300, 50, 3))));
  await compare(
    `add and scale ${C}`,
    [
      [9, C],
      [9, C],
    ],
    ([a, b]) => scale(add(a!, b!), 1.5),
  );
}
for (const [T, D] of [
  [1, 2],
  [100, 64],
  [300, 128],
] as const) {
  const frequencies = Float64Array.from({ length: D / 2 }, (_, d) => 500000 ** ((-2 * d) / D));
  await compare(`rope T ${T} D ${D}`, [[2 * T, 3 * D]], ([x], _, device) =>
    rope(x!, { inverseFrequencies: tensor(frequencies, { device }) }, T),
  );
}
for (const [B, T, H, G, D] of [
  [1, 1, 1, 1, 16],
  [2, 63, 4, 2, 64],
  [1, 65, 4, 1, 80],
  [1, 300, 3, 3, 128],
  [1, 97, 2, 1, 256],
] as const) {
  const shapes = [
    [B * T, H * D],
    [B * T, G * D],
    [B * T, G * D],
  ];
  const name = `attention B${B} T${T} H${H} G${G} D${D}`;
  await compare(name, shapes, ([q, k, v]) => attention(q!, k!, v!, { T, headSize: D }));
  await compare(`${name} window 40 soft-cap 5`, shapes, ([q, k, v]) =>
    attention(q!, k!, v!, { T, headSize: D, window: 40, softcap: 5 }),
  );
  await compare(`${name} documents`, shapes, ([q, k, v], ints) => {
    const starts = Array.from({ length: B * T }, (_, n) => n - ((n % T) % 29));
    return attention(q!, k!, v!, { T, headSize: D, documentStart: ints(...starts) });
  });
}
// Shapes that cuDNN takes, where it is there.
for (const [B, T, H, G, D] of [
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
  for (const options of [{}, { window: 100 }, { softcap: 5 }]) {
    await compare(`attention B${B} T${T} H${H} G${G} D${D} ${JSON.stringify(options)}`, shapes, ([q, k, v]) =>
      attention(q!, k!, v!, { T, headSize: D, ...options }),
    );
  }
}
const lossOptions: ChunkedCrossEntropyOptions[] = [
  {},
  { labelSmoothing: 0.1, zLoss: 1e-3 },
  { softcap: 5 },
  { divisor: 17, softcap: 10, labelSmoothing: 0.2, zLoss: 1e-3 },
];
for (const V of [2, 50, 1025, 32000]) {
  const targets = [...integers(70, V, 5)];
  targets[3] = -100;
  for (const options of lossOptions) {
    await compare(
      `crossEntropy V ${V} ${JSON.stringify(options)}`,
      [[70, V]],
      ([x], ints) => crossEntropy(x!, ints(...targets), options).loss,
    );
    for (const chunkSize of [1, 32, 70, 100]) {
      if (V === 32000 && chunkSize === 1) continue;
      await compare(
        `chunkedCrossEntropy V ${V} chunks of ${chunkSize} ${JSON.stringify(options)}`,
        [
          [70, 48],
          [V, 48],
        ],
        ([h, w], ints) => chunkedCrossEntropy(h!, w!, ints(...targets), { ...options, chunkSize }).loss,
      );
    }
  }
}
for (const chunkSize of [1, 64, 200, 300]) {
  for (const save of ['input', 'gateUp'] as const) {
    await compare(
      `chunkedMlp chunks of ${chunkSize} ${save}`,
      [
        [200, 64],
        [176, 64],
        [176, 64],
        [64, 176],
      ],
      ([x, g, u, d]) => chunkedMlp(x!, g!, u!, d!, { chunkSize, save }),
    );
  }
}

for (const probability of [0, 0.3]) {
  await compare(
    `chunkedMlp with adapters, dropout ${probability}`,
    [
      [200, 64],
      [176, 64],
      [176, 64],
      [64, 176],
      [8, 64],
      [176, 8],
      [4, 176],
      [64, 4],
    ],
    ([x, g, u, d, ga, gb, da, db]) =>
      chunkedMlp(x!, g!, u!, d!, {
        chunkSize: 64,
        dropout: { probability, seed: 3, step: 5 },
        adapters: { gate: { a: ga!, b: gb!, scale: 0.7, op: 1 }, down: { a: da!, b: db!, scale: 0.7, op: 2 } },
      }),
  );
}

// Tokens one by one against the CPU.
for (const folder of parityCases(fixtures)) {
  const logits: Float32Array[] = [];
  for (const device of [cpu, cuda]) {
    using model = await loadModel(folder, { device, dtype: 'float32' });
    using cache = new KeyValueCache(model, 80);
    const ids = integers(80, model.config.vocabSize, 3);
    for (const [begin, end] of [
      [0, 60],
      [60, 61],
      [61, 79],
    ]) {
      await model.decode(ids.subarray(begin, end), cache);
    }
    logits.push(await model.decode(ids.subarray(79), cache));
  }
  report(`generation, ${folder.split('/').at(-1)}`, relativeError(logits[1]!, logits[0]!), 2e-5);
}

// The same bits twice, with the package's own attention; rounding at random too.
{
  const losses: number[][] = [];
  for (let round = 0; round < 2; round++) {
    using device = openDevice(deviceName, { attention: 'own' });
    using model = await loadModel(parityCases(fixtures)[1]!, { device, dtype: 'bfloat16' });
    using optimizer = new AdamW(model.trainableParameters(), { masterWeights: false });
    const result = stepResult(model);
    const ids = integers(128, model.config.vocabSize, 3);
    const batch = () => ({ inputs: tensor(ids, { device }), targets: tensor(ids, { device }), T: 128 });
    const policy = { mlpChunkSize: 50, lossChunkSize: 50, mlpSave: 'input', recompute: 'attention' } as const;
    const found: number[] = [];
    for (let step = 1; step <= 5; step++) {
      const options = { policy, learningRate: 1e-2, maxGradNorm: 1, numTargets: 128, step };
      await trainStep(model, optimizer, [batch], options, result);
      found.push(await result.loss.item());
    }
    losses.push(found);
    disposeResult(result);
  }
  report(`the same bits twice: ${losses[0]!.at(-1)}`, losses[0]!.join() === losses[1]!.join() ? 0 : 1, 0);
}

// Ids out of range are told, and the device goes on.
for (const [what, read] of [
  ['embedding', () => embedding(zeros([4, 2], { device: cuda }), tensor(Int32Array.of(1, 9), { device: cuda })).data()],
  [
    'cross_entropy',
    () =>
      chunkedCrossEntropy(
        zeros([2, 2], { device: cuda }),
        zeros([4, 2], { device: cuda }),
        tensor(Int32Array.of(1, -7), { device: cuda }),
      ).loss.data(),
  ],
] as const) {
  const message = await read().then(
    () => '',
    (error: Error) => error.message,
  );
  report(`${what}: id out of range: ${message.slice(0, 60)}`, /row 1 .*(9|-7).*\[0, 4\)/.test(message) ? 0 : 1, 0);
}

// Out of memory is an error, and a smaller allocation succeeds.
{
  using limited = openDevice(deviceName, { memoryLimit: 2 ** 24 });
  let caught: unknown;
  try {
    zeros([2 ** 23], { device: limited });
  } catch (error) {
    caught = error;
  }
  const small = zeros([1000], { device: limited });
  report(
    'out of memory, then a smaller success',
    caught instanceof OutOfMemoryError && (await small.data())[0] === 0 ? 0 : 1,
    0,
  );
}

for (const folder of parityCases(fixtures)) {
  for (const dtype of ['float32', 'bfloat16'] as const) {
    const limits =
      dtype === 'float32' ? { loss: 1e-5, gradient: 5e-5, losses: 2e-5, gradNorms: 1e-4 } : parityLimits.bfloat16;
    const errors = await runParityCase(
      folder,
      cuda,
      { mlpChunkSize: 29, lossChunkSize: 37, mlpSave: 'input', recompute: 'attention' },
      dtype,
    );
    for (const key of ['loss', 'gradient', 'losses', 'gradNorms'] as const) {
      report(`parity ${folder.split('/').at(-1)} ${dtype} ${key}`, errors[key], limits[key]);
    }
  }
}

// The step's peak is `meta`'s, to the byte.
{
  const config = decoderConfig({
    model_type: 'llama',
    hidden_size: 512,
    intermediate_size: 1408,
    num_hidden_layers: 3,
    num_attention_heads: 8,
    num_key_value_heads: 2,
    vocab_size: 32000,
  });
  const policy = { mlpChunkSize: 1024, lossChunkSize: 1024, mlpSave: 'input', recompute: 'attention' } as const;
  const T = 4096;
  using device = openDevice(deviceName);
  using model = new Decoder(config, { device, dtype: 'bfloat16' }).initialize(1);
  using optimizer = new AdamW(model.trainableParameters());
  const results = [stepResult(model), stepResult(model)];
  device.arena.resetPeak();
  const tokens = integers(T, 32000, 1);
  const batch = () => ({ inputs: tensor(tokens, { device }), targets: tensor(tokens, { device }), T });
  await trainStep(
    model,
    optimizer,
    [batch],
    { policy, learningRate: 1e-3, maxGradNorm: 1, numTargets: T },
    results[0]!,
  );
  const loss = await results[0]!.loss.item();
  const real = device.memory();
  const predicted = simulateStep({ config, B: 1, T, policy, dtype: 'bfloat16', like: device.target });
  report(`a step's loss ${loss.toFixed(3)} against ln V`, Math.abs(loss - Math.log(32000)), 0.2);
  report(
    `peak live ${real.peakBytes} predicted ${predicted.peakBytes}`,
    Math.abs(real.peakBytes - predicted.peakBytes),
    0,
  );
  report(
    `reserved ${real.reservedBytes} predicted ${predicted.reservedBytes}`,
    Math.abs(real.reservedBytes - predicted.reservedBytes),
    0,
  );
  for (const result of results) disposeResult(result);
}

console.log(numFailed === 0 ? 'all checks passed' : `${numFailed} checks FAILED`);
exit(numFailed === 0 ? 0 : 1);
