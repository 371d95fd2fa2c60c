// What becomes of steps in the backward that fail, are stopped, or whose numbers are not finite.
import assert from 'node:assert/strict';
import {
  AdamW,
  Decoder,
  decoderConfig,
  empty,
  HalfStepError,
  OutOfMemoryError,
  planStep,
  simulateStep,
  type Tensor,
  TrainStep,
  type TrainStepOptions,
  tidy,
} from '../../lib/index.ts';
import { openTestDevice } from '../support/devices.ts';
import {
  batchOf,
  bytesOf,
  Factored,
  fields,
  INFINITE,
  MEMORY_LIMIT,
  policy,
  T,
  tensorsOf,
  Watched,
  withStep,
} from '../support/in_backward.ts';

describe('the optimizer step in the backward, where something is wrong', () => {
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
