// The decoder's step: memory, accumulation, tied heads.
import assert from 'node:assert/strict';
import {
  AdamW,
  type Batch,
  Decoder,
  type DecoderConfig,
  type Device,
  decoderConfig,
  type HostBatch,
  nextTokenLoss,
  OutOfMemoryError,
  plainPolicy,
  planStep,
  type StepPolicy,
  simulateStep,
  Tape,
  TrainStep,
  tensor,
  tidy,
} from '../../lib/index.ts';
import { addon } from '../../lib/runtime/native.ts';
import { assertClose } from '../support/compare.ts';
import { itOnCpu, itOnCuda, openTestDevice, testTarget } from '../support/devices.ts';
import { itRefusesNumbers } from '../support/ops.ts';
import { integers } from '../support/random.ts';
import { touchedBytes } from '../support/touched.ts';

const source = {
  model_type: 'llama',
  hidden_size: 64,
  intermediate_size: 160,
  num_hidden_layers: 3,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  vocab_size: 500,
};
const config = decoderConfig(source);
const policies: StepPolicy[] = [
  plainPolicy(600),
  { mlpChunkSize: 70, lossChunkSize: 33, mlpSave: 'input', recompute: 'none' },
  { mlpChunkSize: 70, lossChunkSize: 33, mlpSave: 'gateUp', recompute: 'attention' },
  { mlpChunkSize: 300, lossChunkSize: 600, mlpSave: 'input', recompute: 'layer' },
];

function batchOf(B: number, T: number, seed: number): HostBatch {
  const ids = integers(B * T, 500, seed);
  return { inputs: ids, targets: ids, T };
}

/** Runs `steps` steps and returns what `each` returns after each. */
async function steps<T>(
  device: Device,
  {
    policy,
    dtype,
    num,
    accumulation = 1,
  }: { policy: StepPolicy; dtype: 'float32' | 'bfloat16'; num: number; accumulation?: number },
  each: (model: Decoder) => T,
): Promise<T[]> {
  using model = new Decoder(config, { device, dtype }).initialize(1);
  using optimizer = new AdamW(model.trainableParameters());
  using trainStep = new TrainStep(model, optimizer, { policy });
  const found: T[] = [];
  for (let step = 0; step < num; step++) {
    device.arena.resetPeak();
    const batches = Array.from({ length: accumulation }, (_, i) => batchOf(2, 300, step * accumulation + i));
    await trainStep.run(batches, { learningRate: 1e-3 });
    found.push(each(model));
  }
  await device.synchronize();
  return found;
}

/** One step of a new bf16 model. */
async function oneStep(device: Device, config: DecoderConfig, N: number, policy: StepPolicy): Promise<void> {
  using model = new Decoder(config, { device, dtype: 'bfloat16' }).initialize(1);
  using optimizer = new AdamW(model.trainableParameters());
  using trainStep = new TrainStep(model, optimizer, { policy });
  await trainStep.run([batchOf(1, N, 0)], { learningRate: 1e-3 });
  await device.synchronize();
}

describe('memory of a step', () => {
  for (const policy of policies) {
    for (const dtype of ['float32', 'bfloat16'] as const) {
      it(`is what meta says, to the byte, and the same after every step: ${dtype}, ${JSON.stringify(policy)}`, async () => {
        using device = openTestDevice();
        for (const accumulation of [1, 3]) {
          const predicted = simulateStep({
            config,
            B: 2,
            T: 300,
            policy,
            dtype,
            accumulationSteps: accumulation,
            like: device.target,
          });
          const found = await steps(device, { policy, dtype, num: 4, accumulation }, () => device.memory());
          for (const memory of found) {
            assert.deepEqual(
              [memory.peakBytes, memory.reservedBytes, memory.liveBytes],
              [predicted.peakBytes, predicted.reservedBytes, predicted.liveBytes],
            );
            assert.deepEqual(memory.peak, predicted.peak);
          }
        }
        assert.equal(device.memory().liveBytes, 0);
      });
    }
  }

  itOnCpu('is what the process touches: pages behind the arena', async () => {
    using device = openTestDevice();
    const [{ peakBytes, reservedBytes }] = (await steps(
      device,
      { policy: policies[2]!, dtype: 'float32', num: 1 },
      () => device.memory(),
    )) as [ReturnType<Device['memory']>];
    const touched = touchedBytes(device.address(0));
    assert.ok(touched <= reservedBytes, `${touched} bytes touched, ${reservedBytes} reserved`);
    // Workspaces are sized for the worst case, which these small products are not.
    const workspaces = simulateStep({ config, B: 2, T: 300, policy: policies[2]!, like: device.target }).peak.workspace;
    assert.ok(touched >= peakBytes - workspaces, `${touched} bytes touched, ${peakBytes} at the peak`);
  });

  itOnCuda('is what the driver has given away, to 2 %', async () => {
    const T = 2 ** 15;
    const large = decoderConfig({ ...source, hidden_size: 1024, intermediate_size: 2816, vocab_size: 32000 });
    const policy: StepPolicy = { mlpChunkSize: 4096, lossChunkSize: 4096, mlpSave: 'input', recompute: 'attention' };
    const given: number[] = [];
    let reservedBytes = 0;
    for (let run = 0; run < 2; run++) {
      // The first run also loads kernels and libraries, whose memory is the context's and stays.
      using device = openTestDevice();
      const before = addon().available_bytes(device.id!);
      const predicted = simulateStep({ config: large, B: 1, T, dtype: 'bfloat16', policy, like: device.target });
      await oneStep(device, large, T, policy);
      assert.equal(device.memory().reservedBytes, predicted.reservedBytes);
      reservedBytes = predicted.reservedBytes;
      given.push(before - addon().available_bytes(device.id!));
    }
    assert.ok(reservedBytes > 2 ** 30, `only ${reservedBytes} bytes`);
    const difference = Math.abs(given[1]! - reservedBytes) / reservedBytes;
    assert.ok(difference <= 0.02, `the driver gave ${given} bytes, the arena has ${reservedBytes}`);
  });

  it('does not grow over 100 steps', async () => {
    using device = openTestDevice();
    const live = await steps(
      device,
      { policy: policies[2]!, dtype: 'float32', num: 100 },
      () => device.memory().liveBytes,
    );
    assert.deepEqual(new Set(live).size, 1);
  });

  it('that does not fit throws, and a smaller step succeeds', async () => {
    const { reservedBytes } = simulateStep({
      config,
      B: 2,
      T: 300,
      policy: policies[3]!,
      like: testTarget(),
    });
    using device = openTestDevice({ memoryLimit: reservedBytes });
    await assert.rejects(
      steps(device, { policy: policies[0]!, dtype: 'float32', num: 1 }, () => 0),
      (error: OutOfMemoryError) =>
        error instanceof OutOfMemoryError && error.breakdown.activation > 0 && error.breakdown.parameter > 0,
    );
    await steps(device, { policy: policies[3]!, dtype: 'float32', num: 1 }, () => 0);
  });

  it('shrinks with chunks: the planner finds a policy that fits, and it does', async () => {
    const reserved = (policy: StepPolicy) =>
      simulateStep({ config, B: 2, T: 300, policy, like: testTarget() }).reservedBytes;
    const memoryLimit = Math.floor((reserved(plainPolicy(600)) + reserved(policies[3]!)) / 2);
    const plan = planStep(config, { B: 2, T: 300, memoryLimit, like: testTarget() });
    assert.ok(plan.memory.reservedBytes <= memoryLimit);
    using device = openTestDevice({ memoryLimit });
    await steps(device, { policy: plan.policy, dtype: 'float32', num: 2 }, () => 0);
  });
});

describe('gradients of a step', () => {
  for (const tied of [false, true]) {
    it(`of 4 micro-batches equal those of one batch${tied ? ', with a tied head' : ''}`, async () => {
      const ids = Array.from({ length: 4 }, (_, i) => integers(600, 500, i));
      const all = Int32Array.from(ids.flatMap((each) => [...each]));
      using device = openTestDevice();
      using model = new Decoder(decoderConfig({ ...source, tie_word_embeddings: tied }), { device }).initialize(1);
      const run = async (parts: Int32Array[]) => {
        for (const tokens of parts) {
          tidy(() => {
            const made = { inputs: tensor(tokens, { device }), targets: tensor(tokens, { device }), T: 300 };
            const tape = new Tape();
            tape.backward(
              tape.run(() => nextTokenLoss(model, made, { policy: policies[1]!, divisor: all.length }).loss),
            );
          });
        }
        const found = new Map<string, Float32Array>();
        for (const [name, parameter] of model.namedParameters()) found.set(name, await parameter.grad!.toFloat32());
        model.zeroGrad();
        return found;
      };
      const one = await run([all]);
      const four = await run(ids);
      for (const [name, gradient] of four) assertClose(gradient, one.get(name)!, 5e-6, name);
    });
  }
});

describe('frozen parameters', () => {
  it('have neither gradient nor optimizer state', async () => {
    using device = openTestDevice();
    using model = new Decoder(config, { device }).initialize(1).freeze((name) => !name.includes('mlp'));
    const before = device.memory().liveBytes;
    using optimizer = new AdamW(model.trainableParameters());
    const trainable = model.trainableParameters().reduce((sum, { size }) => sum + size, 0);
    const count = 512; // the number of updates, in a block of its own
    assert.equal(device.memory().liveBytes - before, 8 * trainable + count);
    const frozen = model.namedParameters().get('lm_head.weight')!;
    const old = await frozen.data();
    using trainStep = new TrainStep(model, optimizer, { policy: policies[2]! });
    await trainStep.run([batchOf(1, 300, 1)], { learningRate: 1e-2 });
    assert.deepEqual(await frozen.data(), old);
  });
});

describe('packed documents', () => {
  for (const policy of policies) {
    it(`have the gradient of the documents one by one: ${JSON.stringify(policy)}`, async () => {
      using device = openTestDevice();
      using model = new Decoder(config, { device }).initialize(1);
      const lengths = [5, 9, 1, 30];
      const documents = lengths.map((length, i) => integers(length, 500, 3 + i));
      const run = async (batches: (() => Batch)[]) => {
        const tape = new Tape();
        for (const make of batches) {
          tidy(() => {
            const batch = make();
            tape.backward(tape.run(() => nextTokenLoss(model, batch, { policy, divisor: 45 }).loss));
          });
        }
        const gradients = new Map<string, Float32Array>();
        for (const [name, { grad }] of model.namedParameters()) gradients.set(name, await grad!.toFloat32());
        model.zeroGrad();
        return gradients;
      };
      const alone = await run(
        documents.map((ids, i) => () => {
          const inputs = tensor(ids, { device });
          return { inputs, targets: inputs, T: lengths[i]! };
        }),
      );
      const T = 50; // five rows of padding
      const ids = new Int32Array(T);
      const targets = new Int32Array(T).fill(-100);
      const starts = new Int32Array(T).fill(45);
      let row = 0;
      for (const document of documents) {
        ids.set(document, row);
        targets.set(document, row);
        starts.fill(row, row, row + document.length);
        row += document.length;
      }
      const packed = await run([
        () => ({
          inputs: tensor(ids, { device }),
          targets: tensor(targets, { device }),
          documentStart: tensor(starts, { device }),
          T,
        }),
      ]);
      for (const [name, gradient] of packed) assertClose(gradient, alone.get(name)!, 1e-5, name);
    });
  }
});

itRefusesNumbers('initialize: seed', [0.5, 2 ** 53], (seed) => Decoder.prototype.initialize.call(null as never, seed));
