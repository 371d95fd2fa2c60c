// A training step: its numbers, its policy, and what it refuses.
import assert from 'node:assert/strict';
import {
  AdamW,
  addLora,
  Decoder,
  type Device,
  decoderConfig,
  type HostBatch,
  noGrad,
  type Optimizer,
  OutOfMemoryError,
  type Parameter,
  plainPolicy,
  planStep,
  type StepPolicy,
  simulateStep,
  type Tensor,
  TrainStep,
  tensor,
  tidy,
  type UpdateOptions,
} from '../../lib/index.ts';
import { nextToken } from '../../lib/objectives/next_token.ts';
import { kernels } from '../../lib/runtime/native.ts';
import { StepPolicies } from '../../lib/step/step_policies.ts';
import { openTestDevice, testTarget } from '../support/devices.ts';
import { integers } from '../support/random.ts';
import { tinyLlama } from '../support/runs.ts';

const config = decoderConfig(tinyLlama);
const policy = { mlpChunkSize: 24, lossChunkSize: 24, mlpSave: 'input', recompute: 'attention' } as const;

/** B sequences of T, every third target ignored. */
function batchOf(B: number, T: number, seed: number): HostBatch {
  const targets = integers(B * T, 256, seed + 1).map((id, i) => (i % 3 === 0 ? -100 : id));
  return { inputs: integers(B * T, 256, seed), targets, T };
}

/** Sum of −log softmax at the targets that are not ignored, in f64 from whole logits. */
async function sumOfLosses(model: Decoder, { inputs, targets, T }: HostBatch): Promise<number> {
  const { device } = model;
  const ids = () => tensor(inputs, { dtype: 'int32', device });
  const logits = noGrad(() =>
    tidy(() => model.logits({ inputs: ids(), targets: ids(), T: T! }, plainPolicy(inputs.length))),
  );
  const values = await logits.toFloat32();
  logits.dispose();
  const V = config.vocabSize;
  return Array.from(targets).reduce((sum, target, n) => {
    if (target === -100) return sum;
    const row = values.subarray(n * V, (n + 1) * V);
    return sum + Math.log(row.reduce((total, logit) => total + Math.exp(logit), 0)) - row[target]!;
  }, 0);
}

/** A model and its step, and what `fn` makes of them. */
async function withStep<T>(
  device: Device,
  fn: (step: TrainStep, model: Decoder, optimizer: AdamW) => Promise<T>,
  options: ConstructorParameters<typeof TrainStep>[2] = { policy },
): Promise<T> {
  using model = new Decoder(config, { device }).initialize(1);
  using optimizer = new AdamW(model.trainableParameters());
  using step = new TrainStep(model, optimizer, options);
  return await fn(step, model, optimizer);
}

const bytesOf = (tensors: Iterable<Tensor>) => Promise.all([...tensors].map((each) => each.data()));

/** Plain gradient descent. */
class Descent implements Optimizer {
  readonly parameters: readonly Parameter[];
  numSteps = 0;
  constructor(parameters: readonly Parameter[]) {
    this.parameters = parameters;
  }
  beginStep() {
    this.numSteps += 1;
  }
  update(parameter: Parameter, { learningRate }: UpdateOptions) {
    kernels.scale(parameter.grad!, parameter.grad!, -learningRate);
    kernels.add_to(parameter.grad!, parameter);
  }
  step(learningRate: number) {
    this.beginStep();
    for (const parameter of this.parameters) if (parameter.grad) this.update(parameter, { learningRate });
  }
  *state(): Generator<[string, Tensor]> {}
  like(parameters: readonly Parameter[]) {
    return new Descent(parameters);
  }
  dispose() {}
}

describe('TrainStep', () => {
  it('gives the mean loss over the targets of all micro-batches', async () => {
    using device = openTestDevice();
    await withStep(device, async (step, model) => {
      const batches = [batchOf(1, 20, 1), batchOf(2, 30, 3)];
      const sums = [await sumOfLosses(model, batches[0]!), await sumOfLosses(model, batches[1]!)];
      const { loss, numTargets } = await step.run(batches, { learningRate: 1e-3 });
      assert.equal(numTargets, 13 + 40);
      const expected = (sums[0]! + sums[1]!) / (13 + 40);
      assert.ok(Math.abs((await loss) / expected - 1) < 1e-6, `${await loss} and ${expected}`);
    });
  });

  it('gives the norm of all gradients and the sum of squares of each', async () => {
    using device = openTestDevice();
    const squaresOf = (maxGradNorm: number) =>
      withStep(
        device,
        async (step, model) => {
          const { gradNorm, squares } = await step.run([batchOf(1, 20, 1)], { learningRate: 1e-3 });
          const values = await squares();
          assert.equal(values.length, model.trainableParameters().length);
          const norm = Math.sqrt(values.reduce((sum, square) => sum + square, 0));
          assert.ok(Math.abs((await gradNorm) / norm - 1) < 1e-6);
          return values;
        },
        { policy, maxGradNorm },
      );
    assert.deepEqual(await squaresOf(1e-3), await squaresOf(0)); // before clipping
  });

  it('takes the longest micro-batch first, whatever their order', async () => {
    using device = openTestDevice();
    const batches = [batchOf(1, 20, 1), batchOf(2, 30, 3), batchOf(1, 64, 5)];
    const stateAfter = (order: HostBatch[]) =>
      withStep(device, async (step, model) => {
        device.arena.resetPeak();
        await step.run(order, { learningRate: 1e-3 });
        return [await bytesOf(model.parameters()), device.memory().peakBytes];
      });
    assert.deepEqual(await stateAfter(batches), await stateAfter(batches.toReversed()));
  });

  it('keeps the numbers of a step while the next one runs, and says when they are gone', async () => {
    using device = openTestDevice();
    const batches = [1, 2, 3].map((seed) => batchOf(1, 40, seed));
    const squaresInTurn: Float32Array[] = [];
    const inTurn = await withStep(device, async (step) => {
      const found: number[] = [];
      for (const batch of batches) {
        const { loss, gradNorm, squares } = await step.run([batch], { learningRate: 1e-2 });
        found.push(await loss, await gradNorm);
        squaresInTurn.push(await squares());
      }
      return found;
    });
    await withStep(device, async (step) => {
      const results = [];
      for (const batch of batches) results.push(await step.run([batch], { learningRate: 1e-2 }));
      const numbers = await Promise.all(results.flatMap(({ loss, gradNorm }) => [loss, gradNorm]));
      assert.deepEqual(numbers, inTurn);
      assert.deepEqual([await results[1]!.squares(), await results[2]!.squares()], squaresInTurn.slice(1));
      await assert.rejects(results[0]!.squares(), /TrainStep: the squares of this step have been overwritten/);
    });
  });

  it('stops between two micro-batches with nothing updated, and goes on as if it had not begun', async () => {
    using device = openTestDevice();
    const batches = [batchOf(1, 64, 1), batchOf(1, 40, 3), batchOf(1, 20, 5)];
    const once = await withStep(device, async (step, model) => {
      await step.run(batches, { learningRate: 1e-2 });
      return bytesOf(model.parameters());
    });
    await withStep(device, async (step, model, optimizer) => {
      const tensors = () => [...model.parameters(), ...[...optimizer.state()].map(([, each]) => each)];
      const before = await bytesOf(tensors());
      const live = device.memory().liveBytes;
      const stop = new AbortController();
      const running = step.run(batches, { learningRate: 1e-2, signal: stop.signal });
      stop.abort(new Error('enough'));
      await assert.rejects(running, /enough/);
      assert.deepEqual(await bytesOf(tensors()), before);
      assert.equal(device.memory().liveBytes, live);
      await assert.rejects(step.run(batches, { learningRate: 1e-2, signal: stop.signal }), /enough/);
      await step.run(batches, { learningRate: 1e-2 });
      assert.deepEqual(await bytesOf(model.parameters()), once);
    });
  });

  it('draws other elements to drop in each step and micro-batch, the same ones for the same number', async () => {
    using device = openTestDevice();
    using model = new Decoder(config, { device }).initialize(1);
    for (const { b } of addLora(model, { rank: 4, alpha: 64, dropout: 0.5 }).adapters.values()) {
      b.write(Float32Array.from(integers(b.size, 100, 9), (value) => value / 100 - 0.5));
    }
    using optimizer = new AdamW(model.trainableParameters());
    const lossOf = async (seed: number, step?: number, count = 1) => {
      using run = new TrainStep(model, optimizer, { policy, seed });
      const batches = Array.from({ length: count }, () => batchOf(1, 64, 1));
      return await (await run.run(batches, { learningRate: 0, step })).loss;
    };
    assert.equal(await lossOf(3, 1), await lossOf(3));
    const losses = [await lossOf(3, 1), await lossOf(3, 2), await lossOf(4, 1), await lossOf(3, 1, 2)];
    assert.equal(new Set(losses).size, losses.length, String(losses));
  });

  it('plans for the device, and again for what is larger', async () => {
    const bytesOf = (policy: StepPolicy) =>
      simulateStep({ config, B: 1, T: 2048, like: testTarget(), policy }).reservedBytes;
    const least = bytesOf({ mlpChunkSize: 128, lossChunkSize: 128, mlpSave: 'input', recompute: 'layer' });
    const page = 2 ** 21; // of CUDA: memory is reserved in whole ones
    const memoryLimit = Math.floor((least + bytesOf(plainPolicy(2048))) / 2 / page) * page;
    using device = openTestDevice({ memoryLimit, threads: 2 });
    const small = batchOf(1, 64, 1);
    const large = batchOf(1, 2048, 1);
    await withStep(
      device,
      async (step, model, optimizer) => {
        const policies = new StepPolicies(model, optimizer, nextToken(), { given: null, inBackward: false });
        const { target: like } = device;
        for (const batch of [small, large]) {
          const planned = planStep(config, { B: 1, T: batch.T!, like, memoryLimit: device.memoryLimit }).policy;
          assert.deepEqual(policies.of([batch]), planned);
          await (await step.run([batch], { learningRate: 1e-3 })).loss;
        }
        assert.notDeepEqual(policies.of([large]), plainPolicy(2048));
        assert.equal(policies.of([small]), policies.of([small]));
        assert.ok(device.memory().reservedBytes <= memoryLimit);
      },
      {},
    );
    await withStep(device, (step) => assert.rejects(step.run([large], { learningRate: 1e-3 }), OutOfMemoryError), {
      policy: plainPolicy(2048),
    });
  });

  it('takes a plan for what needs no more than the step that it was made for', async () => {
    using device = openTestDevice();
    await withStep(device, async (_, model, optimizer) => {
      const numPlans = (...steps: HostBatch[][]) => {
        const policies = new StepPolicies(model, optimizer, nextToken(), { given: null, inBackward: false });
        return new Set(steps.map((batches) => policies.of(batches))).size;
      };
      const batch = batchOf(2, 64, 1);
      const packed = { ...batch, documentStart: new Int32Array(128) };
      assert.equal(numPlans([batch], [batchOf(2, 32, 1)], [batchOf(1, 64, 1)]), 1);
      assert.equal(numPlans([packed, packed], [batch, batch, batch], [packed], [batch]), 1);
      for (const larger of [[batchOf(1, 128, 1)], [batchOf(3, 64, 1)], [packed], [batch, batch]]) {
        assert.equal(numPlans([batch], larger), 2);
      }
    });
  });

  it('takes any optimizer, and plans with its state', async () => {
    using device = openTestDevice();
    using model = new Decoder(config, { device }).initialize(1);
    const optimizer = new Descent(model.trainableParameters());
    using step = new TrainStep(model, optimizer, { maxGradNorm: 0 });
    const batch = batchOf(1, 64, 1);
    const first = await step.run([batch], { learningRate: 1e-2 });
    const second = await step.run([batch], { learningRate: 1e-2 });
    // Along the gradient the loss falls by learning rate · norm², to first order.
    const predicted = 1e-2 * (await first.gradNorm) ** 2;
    const fall = (await first.loss) - (await second.loss);
    assert.ok(Math.abs(fall / predicted - 1) < 0.05, `${fall} and ${predicted}`);
    assert.equal(optimizer.numSteps, 2);
    const options = { config, B: 1, T: 64, policy, like: device.target };
    const makeOptimizer = (parameters: readonly Parameter[]) => optimizer.like(parameters);
    assert.equal(simulateStep({ ...options, makeOptimizer }).live.optimizer, 0);
    assert.ok(simulateStep(options).live.optimizer > 0);
  });

  it('refuses what would give wrong numbers', async () => {
    using device = openTestDevice();
    await withStep(device, async (step, model) => {
      const batch = batchOf(1, 40, 1);
      const options = { learningRate: 1e-3 };
      const running = step.run([batch, batch], options);
      await assert.rejects(step.run([batch], options), /TrainStep: a step is running; await it before the next one/);
      await running;
      await assert.rejects(step.run([], options), /TrainStep: batches is empty/);
      await assert.rejects(step.run([batch], { learningRate: NaN }), /TrainStep: learningRate must be .* got NaN/);
      await assert.rejects(step.run([batch], { ...options, step: 0.5 }), /TrainStep: step must be an integer/);
      await assert.rejects(step.run([{ ...batch, T: 7 }], options), /40 tokens, not a multiple of T 7/);
      await assert.rejects(
        step.run([{ inputs: [1, 2], targets: [1] }], options),
        /targets \(1\) has 1 elements for 2 rows/,
      );
      await assert.rejects(
        step.run([{ inputs: [1, 0.5], targets: [1, 2] }], options),
        /element 1, 0.5, is not a 32-bit integer/,
      );
      assert.throws(
        () => new TrainStep(model, new Descent([])),
        /the model trains model.embed_tokens.weight .* the optimizer/,
      );
      assert.throws(() => new TrainStep(model, new Descent(model.parameters()), { maxGradNorm: -1 }), /maxGradNorm/);
      const [first] = model.parameters();
      first!.requiresGrad = false;
      await assert.rejects(step.run([batch], options), /room for \d+ parameters, got \d+/);
      first!.requiresGrad = true;
      await (await step.run([batch], options)).loss;
      step.dispose();
      await assert.rejects(step.run([batch], options), /TrainStep: used after dispose/);
    });
  });
});
