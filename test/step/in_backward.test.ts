// The optimizer step inside the backward: the ordinary step's numbers, the planned memory, and what becomes of steps that fail.
import assert from 'node:assert/strict';
import {
  AdamW,
  addLora,
  Decoder,
  type Device,
  decoderConfig,
  empty,
  HalfStepError,
  type HostBatch,
  type Objective,
  type Optimizer,
  OutOfMemoryError,
  type Parameter,
  planStep,
  type SimulatedStep,
  scale,
  simulateStep,
  type Tensor,
  TrainStep,
  type TrainStepOptions,
  tidy,
  toBfloat16,
  type UpdateOptions,
} from '../../lib/index.ts';
import { nextToken } from '../../lib/objectives/next_token.ts';
import { openTestDevice, testDevice } from '../support/devices.ts';
import { integers } from '../support/random.ts';

/** MLPs and head of 4,096 elements and more, whose states may be narrow. */
const fields = {
  model_type: 'llama',
  hidden_size: 48,
  intermediate_size: 112,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  vocab_size: 128,
  tie_word_embeddings: false,
};
const [C, F, V] = [48, 112, 128];
const T = 77;
/** Of the test of failures: what a step takes and some more. Products on CUDA have a workspace of 32 MiB. */
const MEMORY_LIMIT = testDevice === 'cpu' ? 2 ** 24 : 2 ** 27;
const policy = { mlpChunkSize: 24, lossChunkSize: 24, mlpSave: 'input', recompute: 'attention' } as const;

interface Case extends Pick<SimulatedStep, 'dtype' | 'gradientDtype' | 'masterWeights' | 'stateBits' | 'isPacked'> {
  tied?: boolean;
  lora?: boolean;
  /** @default 2 */
  layers?: number;
  policy?: SimulatedStep['policy'];
}

const lora = { rank: 4, alpha: 16, dropout: 0.25 };
const cases: Record<string, Case> = {
  f32: {},
  'f32, tied, 8-bit states': { tied: true, stateBits: 8 },
  'f32, packed, 16-bit states': { isPacked: true, stateBits: 16 },
  'f32, LoRA with dropout': { lora: true },
  'f32, tied, one chunk, all kept': {
    tied: true,
    policy: { mlpChunkSize: T, lossChunkSize: T, mlpSave: 'gateUp', recompute: 'none' },
  },
  'bf16, master weights': { dtype: 'bfloat16' },
  'bf16, tied, 16-bit states, layers recomputed': {
    dtype: 'bfloat16',
    tied: true,
    stateBits: 16,
    policy: { ...policy, recompute: 'layer' },
  },
  'bf16 rounded at random, 8-bit states, packed': {
    dtype: 'bfloat16',
    masterWeights: false,
    stateBits: 8,
    isPacked: true,
  },
  'bf16 gradients, tied': { dtype: 'bfloat16', gradientDtype: 'bfloat16', masterWeights: false, tied: true },
  'bf16, segments of five layers': {
    dtype: 'bfloat16',
    masterWeights: false,
    tied: true,
    layers: 5,
    policy: { ...policy, recompute: 'segments', slots: 3 },
  },
  'bf16, LoRA with dropout, packed': { dtype: 'bfloat16', lora: true, stateBits: 8, isPacked: true },
};

/** One sequence, every third target ignored. */
function batchOf(seed: number, isPacked = false): HostBatch {
  const targets = integers(T, V, seed + 1).map((id, i) => (i % 3 === 0 ? -100 : id));
  const documentStart = isPacked ? Int32Array.from({ length: T }, (_, t) => (t < 30 ? 0 : 30)) : null;
  return { inputs: integers(T, V, seed), targets, T, documentStart };
}

const configOf = ({ tied = false, layers = 2 }: Case) =>
  decoderConfig({ ...fields, num_hidden_layers: layers, tie_word_embeddings: tied });

async function withStep<R>(
  options: TrainStepOptions,
  fn: (step: TrainStep, model: Decoder, optimizer: AdamW) => Promise<R>,
  { tied, layers, lora: isLora, policy: fixed = policy, device: shared, ...of }: Case & { device?: Device } = {},
): Promise<R> {
  const device = shared ?? openTestDevice();
  try {
    const { dtype, gradientDtype, masterWeights, stateBits } = of;
    const config = configOf({ tied, layers });
    using model = new Decoder(config, { device, dtype, gradientDtype }).initialize(1);
    if (isLora) {
      for (const { b } of addLora(model, lora).adapters.values()) {
        const values = Float32Array.from(integers(b.size, 100, 9), (value) => value / 100 - 0.5);
        b.write(dtype === 'bfloat16' ? toBfloat16(values) : values);
      }
    }
    using optimizer = new AdamW(model.trainableParameters(), { masterWeights, stateBits });
    using step = new TrainStep(model, optimizer, { policy: fixed, ...options });
    return await fn(step, model, optimizer);
  } finally {
    if (!shared) device.close();
  }
}

const tensorsOf = (model: Decoder, optimizer: Optimizer) => [
  ...model.parameters(),
  ...[...optimizer.state()].map(([, each]) => each),
];
const bytesOf = (tensors: Iterable<Tensor>) => Promise.all([...tensors].map((each) => each.data()));

/** Everything that three steps leave: their numbers, parameters and states. */
async function threeSteps(options: TrainStepOptions, of: Case) {
  return await withStep(
    { maxGradNorm: 0, seed: 3, ...options },
    async (step, model, optimizer) => {
      const numbers: unknown[] = [];
      for (const seed of [1, 3, 5]) {
        const { loss, gradNorm, squares } = await step.run([batchOf(seed, of.isPacked)], { learningRate: 1e-2 });
        numbers.push(await loss, await gradNorm, await squares());
      }
      return [numbers, await bytesOf(tensorsOf(model, optimizer))];
    },
    of,
  );
}

/** Makes a loss infinite in f32. */
const INFINITE = 1e39;

/** The next-token loss times a factor that a test changes. */
class Factored implements Objective {
  factor = 1;
  readonly #inner = nextToken();
  count(batch: HostBatch) {
    return this.#inner.count(batch);
  }
  loss(...[model, batch, options]: Parameters<Objective['loss']>) {
    return scale(this.#inner.loss(model, batch, options), this.factor);
  }
}

/** An optimizer that keeps the factors on gradients, and calls a function before each update. */
class Watched implements Optimizer {
  readonly parameters: readonly Parameter[];
  readonly factors: Promise<number>[] = [];
  beforeStep: () => void = () => {};
  before: (numUpdated: number) => void = () => {};
  #numUpdated = 0;
  readonly #inner: AdamW;
  constructor(inner: AdamW) {
    this.#inner = inner;
    this.parameters = inner.parameters;
  }
  beginStep(options: UpdateOptions) {
    this.beforeStep();
    this.factors.length = 0;
    this.#numUpdated = 0;
    this.#inner.beginStep(options);
  }
  update(parameter: Parameter, options: UpdateOptions) {
    this.before(this.#numUpdated++);
    this.#inner.update(parameter, options);
    this.factors[this.parameters.indexOf(parameter)] = options.gradientFactor!.item();
  }
  step(learningRate: number, gradientFactor?: Tensor | null) {
    this.#inner.step(learningRate, gradientFactor);
  }
  state() {
    return this.#inner.state();
  }
  like(parameters: readonly Parameter[]) {
    return this.#inner.like(parameters);
  }
  dispose() {}
}

describe('the optimizer step in the backward', () => {
  for (const [name, of] of Object.entries(cases)) {
    it(`is the ordinary step bit for bit, without clipping: ${name}`, async () => {
      assert.deepEqual(await threeSteps({ inBackward: true }, of), await threeSteps({}, of));
    });

    it(`takes the planned memory to the byte: ${name}`, async () => {
      await withStep(
        { inBackward: true },
        async (step, model) => {
          const { device } = model;
          const config = configOf(of);
          const simulated = simulateStep({
            config,
            B: 1,
            T,
            like: device.target,
            inBackward: true,
            policy,
            ...of,
            lora: of.lora ? lora : null,
          });
          for (const seed of [1, 3]) {
            device.arena.resetPeak();
            await (await step.run([batchOf(seed, of.isPacked)], { learningRate: 1e-3 })).loss;
            const { peakBytes, reservedBytes, peak, live } = device.memory();
            assert.deepEqual(
              { peakBytes, reservedBytes, peak, live },
              {
                peakBytes: simulated.peakBytes,
                reservedBytes: simulated.reservedBytes,
                peak: simulated.peak,
                live: simulated.live,
              },
            );
          }
        },
        of,
      );
    });
  }

  it('has the gradients of one group at a time', () => {
    const config = (tied: boolean) => decoderConfig({ ...fields, num_hidden_layers: 6, tie_word_embeddings: tied });
    const gradients = (tied: boolean, inBackward: boolean) => {
      const step = { B: 1, T, like: { kind: 'cpu', threads: 2 }, policy, inBackward } as const;
      return simulateStep({ config: config(tied), ...step }).peak.gradient;
    };
    const ofMlp = 4 * 3 * F * C;
    assert.ok(gradients(false, true) <= Math.max(ofMlp, 4 * V * C), `${gradients(false, true)}`);
    assert.ok(gradients(true, true) <= ofMlp + 4 * V * C, `${gradients(true, true)}`); // the head's until the embedding
    assert.ok(gradients(false, false) > 6 * ofMlp);
  });

  describe('clipping', () => {
    const maxGradNorm = 0.05;
    const clip = (norm: number) => Math.min(1, maxGradNorm / (norm + 1e-6));

    /** For each of two steps the factors on gradients, their sums of squares and the norm. */
    async function factorsOf(options: TrainStepOptions) {
      using device = openTestDevice();
      using model = new Decoder(decoderConfig(fields), { device }).initialize(1);
      using inner = new AdamW(model.trainableParameters());
      const optimizer = new Watched(inner);
      using step = new TrainStep(model, optimizer, { policy, maxGradNorm, ...options });
      const steps = [];
      for (const seed of [1, 3]) {
        const { gradNorm, squares } = await step.run([batchOf(seed)], { learningRate: 1e-3 });
        const factors = await Promise.all(optimizer.factors);
        steps.push({ factors, squares: Array.from(await squares()), norm: await gradNorm });
      }
      return steps;
    }
    const isNear = (actual: readonly number[], expected: readonly number[]) => {
      assert.equal(actual.length, expected.length);
      for (const [i, value] of actual.entries()) {
        assert.ok(Math.abs(value / expected[i]! - 1) < 1e-6, `${value}, ${expected[i]}`);
      }
    };
    const own = (squares: readonly number[]) => squares.map((square) => clip(Math.sqrt(square)));

    it("by 'parameter' is by each gradient's own norm, in the backward or not", async () => {
      for (const inBackward of [true, false]) {
        for (const { factors, squares } of await factorsOf({ clipping: 'parameter', inBackward })) {
          isNear(factors, own(squares));
          assert.ok(factors.some((factor) => factor < 1) && new Set(factors).size > 5, String(factors));
        }
      }
      const of = { clipping: 'parameter', maxGradNorm } as const;
      assert.deepEqual(await threeSteps({ ...of, inBackward: true }, {}), await threeSteps(of, {}));
    });

    it("by 'previous', the default, is by the norm of the step before, the first by parameter", async () => {
      const [first, second] = await factorsOf({ inBackward: true });
      isNear(first!.factors, own(first!.squares));
      assert.ok(clip(first!.norm) < 1);
      isNear(
        second!.factors,
        second!.squares.map(() => clip(first!.norm)),
      );
      isNear([second!.norm], [Math.sqrt(second!.squares.reduce((sum, square) => sum + square, 0))]);
    });

    it('is none by name and with maxGradNorm 0', async () => {
      for (const options of [{ clipping: 'none' }, { maxGradNorm: 0 }] as const) {
        for (const { factors } of await factorsOf({ ...options, inBackward: true })) {
          assert.ok(factors.every((factor) => factor === 1));
        }
      }
      assert.deepEqual(await threeSteps({ clipping: 'none', maxGradNorm: 1e-3 }, {}), await threeSteps({}, {}));
    });

    it("by 'previous' goes on exactly with previousNorm, which keeps the last finite norm", async () => {
      const runSteps = async (split: boolean) => {
        using device = openTestDevice();
        using model = new Decoder(decoderConfig(fields), { device }).initialize(1);
        using optimizer = new AdamW(model.trainableParameters());
        const objective = new Factored();
        const options = { policy, objective, maxGradNorm, inBackward: true };
        let step = new TrainStep(model, optimizer, options);
        assert.equal(await step.previousNorm(), null);
        for (const seed of [1, 3, 5, 7]) {
          objective.factor = seed === 3 ? INFINITE : 1;
          const before = await step.previousNorm();
          const { gradNorm } = await step.run([batchOf(seed)], { learningRate: 1e-2, step: seed });
          assert.equal(await step.previousNorm(), seed === 3 ? before : await gradNorm);
          if (!split || seed === 7) continue;
          const previousNorm = JSON.parse(JSON.stringify(await step.previousNorm()));
          step.dispose();
          step = new TrainStep(model, optimizer, { ...options, previousNorm });
        }
        step.dispose();
        return await bytesOf(tensorsOf(model, optimizer));
      };
      assert.deepEqual(await runSteps(true), await runSteps(false));
    });
  });

  it('changes nothing where the loss is not finite', async () => {
    const objective = new Factored();
    await withStep({ inBackward: true, objective }, async (step, model, optimizer) => {
      await step.run([batchOf(1)], { learningRate: 1e-2 });
      const before = await bytesOf(tensorsOf(model, optimizer));
      const norm = await step.previousNorm();
      const { liveBytes } = model.device.memory();
      objective.factor = INFINITE;
      const { loss, gradNorm, squares } = await step.run([batchOf(3)], { learningRate: 1e-2 });
      assert.equal(await loss, Number.POSITIVE_INFINITY);
      assert.ok(Number.isNaN(await gradNorm) && (await squares()).every(Number.isNaN));
      assert.deepEqual(await bytesOf(tensorsOf(model, optimizer)), before);
      assert.equal(await step.previousNorm(), norm);
      assert.equal(model.device.memory().liveBytes, liveBytes);
    });
  });

  it('leaves a parameter whose gradient is not finite as it is, and says so by the norm', async () => {
    const objective = new Factored();
    await withStep({ inBackward: true, objective }, async (step, model) => {
      await step.run([batchOf(1)], { learningRate: 1e-2 });
      const before = await bytesOf(model.parameters());
      const norm = await step.previousNorm();
      objective.factor = 5e37; // the squares of all gradients are past f32
      const { loss, gradNorm } = await step.run([batchOf(3)], { learningRate: 1e-2 });
      assert.ok(Number.isFinite(await loss));
      assert.equal(await gradNorm, Number.POSITIVE_INFINITY);
      assert.deepEqual(await bytesOf(model.parameters()), before);
      assert.equal(await step.previousNorm(), norm);
    });
  });

  it('stops between forward and backward, with nothing updated', async () => {
    await withStep({ inBackward: true }, async (step, model, optimizer) => {
      const before = await bytesOf(tensorsOf(model, optimizer));
      const { liveBytes } = model.device.memory();
      const stop = new AbortController();
      const running = step.run([batchOf(1)], { learningRate: 1e-2, signal: stop.signal });
      stop.abort(new Error('enough'));
      await assert.rejects(running, /enough/);
      assert.deepEqual(await bytesOf(tensorsOf(model, optimizer)), before);
      assert.equal(model.device.memory().liveBytes, liveBytes);
    });
  });

  it('that fails in the backward frees its gradients, and says whether it is half done', async () => {
    using device = openTestDevice({ memoryLimit: MEMORY_LIMIT });
    using model = new Decoder(decoderConfig(fields), { device }).initialize(1);
    using inner = new AdamW(model.trainableParameters());
    const optimizer = new Watched(inner);
    using step = new TrainStep(model, optimizer, { policy, inBackward: true });
    const options = { learningRate: 1e-2 };
    const before = await bytesOf(tensorsOf(model, optimizer));
    const { liveBytes } = device.memory();
    const ballast: Tensor[] = [];
    const fillUp = () => {
      for (let bytes = MEMORY_LIMIT; bytes >= 256; bytes /= 2) {
        try {
          ballast.push(tidy(() => empty([bytes / 4], { device }).keep()));
          bytes *= 2;
        } catch (error) {
          assert.ok(error instanceof OutOfMemoryError);
        }
      }
    };
    const empties = () => {
      for (const each of ballast.splice(0)) each.dispose();
    };
    optimizer.beforeStep = () => {
      throw new Error('not yet');
    };
    await assert.rejects(step.run([batchOf(1)], options), { name: 'Error', message: 'not yet' });
    assert.deepEqual(await bytesOf(tensorsOf(model, optimizer)), before);
    assert.equal(device.memory().liveBytes, liveBytes);

    optimizer.beforeStep = () => {};
    optimizer.before = (numUpdated) => numUpdated >= 5 && fillUp();
    await assert.rejects(step.run([batchOf(1)], options), (error) => {
      assert.ok(error instanceof HalfStepError && error.cause instanceof OutOfMemoryError);
      assert.match(error.message, /half done, \d+ of \d+ parameters are updated: continue from .*out of memory/);
      return true;
    });
    empties();
    assert.equal(device.memory().liveBytes, liveBytes);
    optimizer.before = () => {};
    assert.ok(Number.isFinite(await (await step.run([batchOf(1)], options)).loss));
    assert.equal(device.memory().liveBytes, liveBytes);
  });

  it('refuses what contradicts itself', async () => {
    using device = openTestDevice();
    using model = new Decoder(decoderConfig(fields), { device }).initialize(1);
    using optimizer = new AdamW(model.trainableParameters());
    const refused = (options: TrainStepOptions, message: RegExp) =>
      assert.throws(() => new TrainStep(model, optimizer, options), message);
    refused({ clipping: 'global', inBackward: true }, /clipping 'global' needs all gradients .* 'previous' or 'param/);
    refused({ clipping: 'previous' }, /clipping 'previous' is for inBackward true, .*false.*'global'/);
    for (const clipping of ['global', 'parameter'] as const) {
      refused({ clipping, maxGradNorm: 0 }, new RegExp(`clipping '${clipping}' contradicts maxGradNorm 0.*'none'`));
    }
    refused({ clipping: 'norm' as 'none' }, /clipping must be global, previous, parameter, none, got norm/);
    refused({ inBackward: 'yes' as unknown as boolean }, /inBackward must be true or false, got yes/);
    refused({ previousNorm: 2 }, /previousNorm 2 is for clipping 'previous', and clipping is 'global'/);
    refused({ previousNorm: Number.NaN, inBackward: true }, /previousNorm must be .* got NaN/);
    using step = new TrainStep(model, optimizer, { inBackward: true });
    const several = /inBackward true is for one micro-batch a step, got 2/;
    await assert.rejects(step.run([batchOf(1), batchOf(3)], { learningRate: 1e-3 }), several);
    const shape = { config: decoderConfig(fields), B: 1, T, inBackward: true, accumulationSteps: 2 };
    assert.throws(() => simulateStep({ ...shape, policy }), several);
    assert.throws(() => planStep(shape.config, { ...shape, memoryLimit: 2 ** 40 }), several);
    // The plan knows that less memory is needed.
    const one = { ...shape, accumulationSteps: 1, like: { kind: 'cpu', threads: 2 } } as const; // whose pages are small
    const { reservedBytes } = simulateStep({ ...one, policy });
    assert.ok(reservedBytes < simulateStep({ ...one, inBackward: false, policy }).reservedBytes);
    const plan = planStep(one.config, { ...one, memoryLimit: reservedBytes, fixed: policy });
    assert.equal(plan.memory.reservedBytes, reservedBytes);
    const ordinary = { ...one, inBackward: false, memoryLimit: reservedBytes, fixed: policy };
    assert.throws(() => planStep(one.config, ordinary), /optimizer\.inBackward/);
  });
});
