// The cases: MLP and head in chunks beside whole, attention, and training steps.
import {
  AdamW,
  attention,
  type Batch,
  type CrossEntropyOptions,
  chunkedCrossEntropy,
  chunkedMlp,
  crossEntropy,
  Decoder,
  type Device,
  type DeviceName,
  type Dtype,
  decoderConfig,
  empty,
  type GradientDtype,
  linear,
  noGrad,
  openDevice,
  Parameter,
  plainPolicy,
  planStep,
  recompute,
  type StateBits,
  type StepPolicy,
  swiglu,
  Tape,
  type Tensor,
  TrainStep,
  tensor,
  tidy,
} from '../lib/index.ts';
import { presetConfig } from '../lib/models/presets.ts';
import { nextToken } from '../lib/objectives/next_token.ts';
import { addon, kernels } from '../lib/runtime/native.ts';
import { microSteps, stepScalars } from '../lib/step/micro_steps.ts';
import { forwardBackward, type Measurement, measure, median } from './measure.ts';

export interface Sizes {
  N: number;
  C: number;
  F: number;
  V: number;
  chunkSize: number;
  /** Layers of the Llama, for a quick run. @default 32 */
  layers?: number;
  /** Whether the head returns the loss and the entropy of every token too. @default false */
  perToken?: boolean;
  /** Of the head's logits. @default 0, none */
  softcap?: number;
  /** Of the Llama's optimizer states. @default 32 */
  stateBits?: StateBits;
  /** Of the Llama's gradients. @default 'float32' */
  gradientDtype?: GradientDtype;
  /** Whether the Llama's parameters are updated in the backward. @default false */
  inBackward?: boolean;
  /** Whether a step runs before those that are timed. @default true */
  warmUp?: boolean;
  /** What the Llama's step may take of the host, in bytes. @default 0 */
  hostMemoryLimit?: number;
  /** What is fixed of the Llama's policy. @default each layer's input and attention's output kept, where that fits */
  policy?: Partial<StepPolicy>;
}

/** Steps before a capture. */
const WARM_UP = 3;

export type Case = (device: Device, dtype: Dtype, sizes: Sizes, rounds: number) => Promise<Measurement[]>;

function random(device: Device, dtype: Dtype, shape: number[], op: number, deviation: number): Tensor {
  const result = empty(shape, { device, dtype, category: 'parameter' });
  kernels.random_normal(result, 0, deviation, 1, op, 0);
  return result;
}

/** An activation that gets a gradient, as from the layer before: in its own dtype and not kept, unlike a parameter's. */
function input(tensor: Tensor): Tensor {
  tensor.requiresGrad = true;
  return tensor;
}

/** Ratios are to the whole MLP of plain ops, which saves gate, up and their product. */
export const mlp: Case = async (device, dtype, { N, C, F, chunkSize }, rounds) => {
  const x = input(random(device, dtype, [N, C], 0, 1));
  const [gate, up, down] = [
    [F, C],
    [F, C],
    [C, F],
  ].map((shape, i) => new Parameter(random(device, dtype, shape, 1 + i, 0.02))) as [Parameter, Parameter, Parameter];
  const dy = random(device, dtype, [N, C], 9, 1);
  const weights = [gate, up, down];
  const plain = (x: Tensor) => linear(swiglu(linear(x, gate), linear(x, up)), down);
  const run = (fn: () => Tensor) => () => forwardBackward(fn, dy, weights);
  return await measure(
    device,
    [
      { name: 'whole', run: run(() => plain(x)) },
      { name: `chunks of ${chunkSize}`, run: run(() => chunkedMlp(x, gate, up, down, { chunkSize })) },
      { name: 'whole, recomputed with early stop', run: run(() => recompute(plain, [x])) },
      {
        name: 'whole, recomputed whole',
        run() {
          noGrad(() => plain(x)).dispose();
          forwardBackward(() => plain(x), dy, weights);
        },
      },
      {
        name: "one chunk, save: 'gateUp'",
        run: run(() => chunkedMlp(x, gate, up, down, { chunkSize: N, save: 'gateUp' })),
      },
      { name: "one chunk, save: 'input'", run: run(() => chunkedMlp(x, gate, up, down, { chunkSize: N })) },
    ],
    rounds,
    weights,
  );
};

/** Ratios are to the whole head of plain ops, which saves the logits. */
export const head: Case = async (device, dtype, { N, C, V, chunkSize, perToken = false, softcap = 0 }, rounds) => {
  const hidden = input(random(device, dtype, [N, C], 0, 1));
  const weight = new Parameter(random(device, dtype, [V, C], 1, 0.02));
  const targets = tensor(
    Int32Array.from({ length: N }, (_, n) => (n * 7919) % V),
    { device },
  );
  const options: CrossEntropyOptions = { divisor: N, perToken: perToken ? ['losses', 'entropy'] : [], softcap };
  const run = (fn: () => Tensor) => () => forwardBackward(fn, null, [weight]);
  return await measure(
    device,
    [
      { name: 'whole', run: run(() => crossEntropy(linear(hidden, weight), targets, options).loss) },
      {
        name: `chunks of ${chunkSize}`,
        run: run(() => chunkedCrossEntropy(hidden, weight, targets, { ...options, chunkSize }).loss),
      },
      {
        name: 'one chunk',
        run: run(() => chunkedCrossEntropy(hidden, weight, targets, { ...options, chunkSize: N }).loss),
      },
    ],
    rounds,
    [weight],
  );
};

/** A step of a decoder of 4 layers at T = N; ratios are to ordinary training. */
export const step: Case = async (device, dtype, { N, C, F, V, chunkSize }, rounds) => {
  const config = decoderConfig({
    model_type: 'llama',
    hidden_size: C,
    intermediate_size: F,
    num_hidden_layers: 4,
    num_attention_heads: C / 64,
    num_key_value_heads: C / 256,
    vocab_size: V,
  });
  const model = new Decoder(config, { device, dtype }).initialize(1);
  const optimizer = new AdamW(model.trainableParameters());
  const tokens = Int32Array.from({ length: N }, (_, n) => (n * 7919) % V);
  const chunked = { mlpChunkSize: chunkSize, lossChunkSize: chunkSize, mlpSave: 'input' } as const;
  const policies: Record<string, StepPolicy> = {
    'ordinary training': plainPolicy(N),
    'mini-sequences': { ...chunked, recompute: 'none' },
    "mini-sequences, recompute: 'attention'": { ...chunked, recompute: 'attention' },
    "mini-sequences, recompute: 'layer'": { ...chunked, recompute: 'layer' },
  };
  const names = Object.keys(policies);
  const times: number[][] = names.map(() => []);
  const peaks: number[] = [];
  for (let round = -1; round < rounds; round++) {
    for (const [i, name] of names.entries()) {
      using step = new TrainStep(model, optimizer, { policy: policies[name]! });
      device.arena.resetPeak();
      const start = performance.now();
      await step.run([{ inputs: tokens, targets: tokens }], { learningRate: 1e-4 });
      await device.synchronize();
      if (round >= 0) times[i]!.push(performance.now() - start);
      peaks[i] = device.memory().peakBytes;
    }
  }
  return names.map((name, i) => ({
    name,
    peakBytes: peaks[i]!,
    milliseconds: median(times[i]!),
    ratio: median(times[i]!.map((time, round) => time / times[0]![round]!)),
  }));
};

/**
 * Attention of one causal sequence of N, heads of 128, four query heads a key/value head; on CUDA by the built-in kernels and by
 * cuDNN. Ratios are to the first; operations are those of the causal half, the backward 2.5 times the forward's.
 */
export const attentionCase: Case = async (device, dtype, { N, C }, rounds) => {
  const D = 128;
  const H = C / D;
  const G = Math.max(1, H / 4);
  const measurements: Measurement[] = [];
  const first: number[] = [];
  for (const kind of device.target.kind === 'cuda' ? (['builtin', 'cudnn'] as const) : (['builtin'] as const)) {
    const on = device.target.kind === 'cuda' ? openDevice(device.name as DeviceName, { attention: kind }) : device;
    const [q, k, v] = [H, G, G].map((heads, i) => new Parameter(random(on, dtype, [N, heads * D], i, 1))) as [
      Parameter,
      Parameter,
      Parameter,
    ];
    const dout = random(on, dtype, [N, C], 9, 1);
    const times: [number[], number[]] = [[], []];
    let peakBytes = 0;
    for (let round = -1; round < rounds; round++) {
      await on.synchronize();
      const before = on.memory().liveBytes;
      on.arena.resetPeak();
      const tape = new Tape();
      const moments = [performance.now()];
      const out = tape.run(() => attention(q, k, v, { T: N, headSize: D }));
      await on.synchronize();
      moments.push(performance.now());
      tidy(() => tape.backward(out, dout));
      await on.synchronize();
      moments.push(performance.now());
      peakBytes = on.memory().peakBytes - before;
      out.dispose();
      for (const parameter of [q, k, v]) parameter.zeroGrad();
      if (round >= 0) for (const [i, list] of times.entries()) list.push(moments[i + 1]! - moments[i]!);
    }
    for (const [i, pass] of ['forward', 'backward'].entries()) {
      const milliseconds = median(times[i]!);
      first[i] ??= milliseconds;
      const operations = 2 * N * N * C * (i === 0 ? 1 : 2.5);
      measurements.push({
        name: `${kind}, ${pass}`,
        peakBytes,
        milliseconds,
        ratio: milliseconds / first[i]!,
        teraflops: operations / milliseconds / 1e9,
      });
    }
    for (const tensor of [q, k, v, dout]) tensor.dispose();
    if (on !== device) on.close();
  }
  return measurements;
};

/** Llama-3-8B with random weights, an optimizer without master weights, and the policy of a training step of one sequence of T = N. */
function llama(device: Device, dtype: Dtype, sizes: Sizes) {
  const { N, chunkSize, layers = 32, stateBits, gradientDtype, inBackward = false } = sizes;
  const config = decoderConfig({ ...presetConfig('Llama-3-8B'), num_hidden_layers: layers });
  const { target: like, memoryLimit } = device;
  const hostMemoryLimit = device.host.limit;
  const fixed = { mlpChunkSize: chunkSize, lossChunkSize: chunkSize, mlpSave: 'input' } as const;
  const limits = { memoryLimit, hostMemoryLimit };
  const shape = { B: 1, T: N, dtype, gradientDtype, like, ...limits, masterWeights: false, stateBits, inBackward };
  const fits = (policy: Partial<StepPolicy>) => {
    try {
      return planStep(config, { ...shape, fixed: policy });
    } catch {
      return null;
    }
  };
  const keeping = (recompute: StepPolicy['recompute']) => fits({ ...fixed, recompute });
  const plan = sizes.policy ? fits(sizes.policy) : (keeping('attention') ?? keeping('layer') ?? keeping('segments'));
  if (!plan) throw new RangeError(`llama3: T ${N} does not fit ${memoryLimit} bytes`);
  const model = new Decoder(config, { device, dtype, gradientDtype }).initialize(1);
  const optimizer = new AdamW(model.trainableParameters(), { masterWeights: false, stateBits });
  const tokens = Int32Array.from({ length: N }, (_, n) => (n * 7919) % config.vocabSize);
  return { config, model, optimizer, plan, tokens };
}

/**
 * One training step of Llama-3-8B. teraflops counts the model's own operations: for each token, 6 for each parameter
 * outside the embedding, and 6·L·T·C for causal attention; none for recomputation.
 */
export const llama3: Case = async (device, dtype, sizes, rounds) => {
  const { config, model, optimizer, plan, tokens } = llama(device, dtype, sizes);
  const { N, inBackward = false, warmUp = true } = sizes;
  const { policy } = plan;
  using step = new TrainStep(model, optimizer, { policy, inBackward });
  const times: number[] = [];
  for (let round = warmUp ? -1 : 0; round < rounds; round++) {
    const start = performance.now();
    const { loss } = await step.run([{ inputs: tokens, targets: tokens, T: N }], { learningRate: 1e-5 });
    await device.synchronize();
    if (!Number.isFinite(await loss)) throw new Error(`llama3: the loss is ${await loss}`);
    if (round >= 0) times.push(performance.now() - start);
  }
  const milliseconds = median(times);
  const multiplied = model.numParameters() - config.vocabSize * config.hiddenSize;
  const operations = 6 * multiplied * N + 6 * config.layers.length * N * N * config.hiddenSize;
  const { reservedBytes: peakBytes } = device.memory();
  const how = [
    `recompute: '${policy.recompute}'`,
    ...(policy.keepAttention ? ["attention's output kept in them"] : []),
    ...(policy.offloadedInputs ? [`${policy.offloadedInputs} inputs on the host`] : []),
    ...(sizes.stateBits === undefined ? [] : [`${sizes.stateBits}-bit states`]),
    ...(inBackward ? ['step in the backward'] : []),
  ];
  const [gpu] = addon().describe_cuda().devices;
  return [
    {
      name: `T ${N}, ${how.join(', ')}`,
      peakBytes,
      plannedBytes: plan.memory.reservedBytes,
      usedBytes: gpu && gpu.totalBytes - gpu.freeBytes,
      milliseconds,
      ratio: 1,
      teraflops: operations / milliseconds / 1e9,
    },
  ];
};

/**
 * Whether the host keeps the device busy: a step of Llama-3-8B as JavaScript enqueues it, in turn with the same commands replayed as one
 * CUDA graph. Ratios are to the graph, whose batch is copied to the device beforehand, since commands that wait cannot be captured.
 */
export const graph: Case = async (device, dtype, sizes, rounds) => {
  const { id } = device;
  if (id === null) throw new Error('graph: needs a GPU');
  const { model, optimizer, plan, tokens } = llama(device, dtype, sizes);
  const scalars = stepScalars(model);
  const ids = tensor(tokens, { device }).keep();
  const batch: Batch = { inputs: ids, targets: ids, T: sizes.N };
  const options = {
    objective: nextToken(),
    policy: plan.policy,
    divisor: sizes.N,
    learningRate: 1e-5,
    maxGradNorm: 1,
    dropout: { seed: 0, step: 0 },
  };
  const run = async () => {
    for (const _ of microSteps({ model, optimizer, scalars }, [() => batch], options));
  };
  const replay = async () => addon().replay(id);
  for (let i = 0; i < WARM_UP; i++) await run(); // the arena grows, kernels are loaded, plans of products and attention are made
  await device.synchronize();
  addon().begin_capture(id);
  await run();
  addon().end_capture(id);
  await replay();
  await device.synchronize();
  const names = ['replayed as one graph', 'run', 'run: until all is enqueued'];
  const times: number[][] = names.map(() => []);
  for (let round = 0; round < rounds; round++) {
    for (const [i, work] of [replay, run].entries()) {
      const start = performance.now();
      await work();
      const enqueued = performance.now() - start;
      await device.synchronize();
      times[i]!.push(performance.now() - start);
      if (work === run) times[2]!.push(enqueued);
    }
  }
  const [, numSteps] = optimizer.state().next().value as [string, Tensor];
  const made = await numSteps.item();
  const expected = WARM_UP + 1 + 2 * rounds; // capturing a step does not run it
  if (made !== expected) throw new Error(`graph: ${made} steps were made, not ${expected}: a replay left some out`);
  const { reservedBytes: peakBytes } = device.memory();
  return names.map((name, i) => ({
    name,
    peakBytes,
    milliseconds: median(times[i]!),
    ratio: median(times[i]!.map((time, round) => time / times[0]![round]!)),
  }));
};

export const cases = { mlp, head, step, attention: attentionCase, llama3, graph };
