// Inputs of layers in host memory: losses and parameters are those of a step that keeps them on the device, bit for bit, also where copies
// run as late as the waits allow; device and host hold what meta says; and what does not fit is refused before anything changes.
import assert from 'node:assert/strict';
import {
  AdamW,
  addLora,
  Decoder,
  type Device,
  type Dtype,
  decoderConfig,
  type HostBatch,
  nextTokenLoss,
  noGrad,
  OutOfMemoryError,
  openDevice,
  type StepPolicy,
  simulateStep,
  Tape,
  TrainStep,
  zeros,
} from '../../lib/index.ts';
import { toDevice } from '../../lib/models/batch.ts';
import { addon, kernels } from '../../lib/runtime/native.ts';
import { itOnCpu, openTestDevice } from '../support/devices.ts';
import { integers } from '../support/random.ts';
import { tinyLlama } from '../support/runs.ts';

const L = 5;
const T = 77;
const C = tinyLlama.hidden_size;
const base = { mlpChunkSize: 24, lossChunkSize: 24, mlpSave: 'input', recompute: 'layer' } as const;
const others: StepPolicy[] = [
  { ...base, recompute: 'attention' },
  { ...base, recompute: 'segments', slots: 3 },
  { ...base, recompute: 'segments', slots: 4, keepAttention: true },
];
const offloading = (offloadedInputs: number): StepPolicy => ({ ...base, offloadedInputs });

interface Case {
  dtype?: Dtype;
  isPacked?: boolean;
  lora?: boolean;
  /** Micro-batches of a step. */
  accumulationSteps?: number;
  inBackward?: boolean;
  stateBits?: 8;
}
const cases: Record<string, Case> = {
  f32: {},
  'bf16, packed, 8-bit states, the step in the backward': {
    dtype: 'bfloat16',
    isPacked: true,
    inBackward: true,
    stateBits: 8,
  },
  'adapters with dropout, two micro-batches': { lora: true, accumulationSteps: 2 },
  'bf16, packed, three micro-batches': { dtype: 'bfloat16', isPacked: true, accumulationSteps: 3 },
};

function batchOf(seed: number, T: number, isPacked = false): HostBatch {
  const starts = Int32Array.from({ length: T }, (_, n) => (n < 9 ? 0 : 9));
  return {
    inputs: integers(T, 256, seed),
    targets: integers(T, 256, seed + 1),
    T,
    ...(isPacked && { documentStart: starts }),
  };
}

function modelOn(device: Device, { dtype = 'float32', lora = false }: Case): Decoder {
  const model = new Decoder(decoderConfig({ ...tinyLlama, num_hidden_layers: L }), { device, dtype }).initialize(1);
  if (lora) addLora(model, { rank: 4, dropout: 0.25 });
  return model;
}

/** Losses and norms of steps, all parameters after the last one, and the device's memory. Each micro-batch is `shorter` than the one before. */
async function trained(each: Case, policy: StepPolicy, { numSteps = 3, shorter = 7 } = {}) {
  const { isPacked, accumulationSteps = 1, inBackward = false, stateBits, dtype } = each;
  using device = openTestDevice({ deterministic: true, hostMemoryLimit: 2 ** 24 });
  using model = modelOn(device, each);
  const optimizer = new AdamW(model.trainableParameters(), {
    stateBits,
    masterWeights: dtype === 'bfloat16' ? !stateBits : undefined,
  });
  const results: number[] = [];
  const step = new TrainStep(model, optimizer, { policy, inBackward });
  for (let i = 0; i < numSteps; i++) {
    const batches = Array.from({ length: accumulationSteps }, (_, j) => batchOf(10 * i + j, T - shorter * j, isPacked));
    const { loss, gradNorm } = await step.run(batches, { learningRate: 1e-2 });
    results.push(await loss, await gradNorm);
    assert.equal(device.host.liveBytes, 0);
  }
  const parameters: Float32Array[] = [];
  for (const parameter of model.trainableParameters()) parameters.push(await parameter.toFloat32());
  const memory = device.memory();
  step.dispose();
  optimizer.dispose();
  return { results, parameters, memory };
}

/** Runs `fn` while copies beside commands run only when somebody waits for them, and those before them in their stream. */
async function withLateCopies<R>(fn: () => Promise<R>): Promise<R> {
  const calls = addon();
  const { copy_beside, wait_for, synchronize } = calls;
  let pending: { id: number; event: number; stream: number; run(): void }[] = [];
  let numEvents = 0;
  const runAll = (which: (copy: (typeof pending)[number]) => boolean) => {
    for (const copy of pending.filter(which)) copy.run();
    pending = pending.filter((copy) => !which(copy));
  };
  calls.copy_beside = (id, stream, to, from, bytes) => {
    numEvents += 1;
    pending.push({ id, event: numEvents, stream, run: () => copy_beside(id, stream, to, from, bytes) });
    return numEvents;
  };
  calls.wait_for = (id, event) => {
    const found = pending.find((copy) => copy.id === id && copy.event === event);
    if (found) runAll((copy) => copy.id === id && copy.stream === found.stream && copy.event <= event);
  };
  calls.synchronize = (id) => {
    runAll((copy) => copy.id === id);
    return synchronize(id);
  };
  try {
    return await fn();
  } finally {
    Object.assign(calls, { copy_beside, wait_for, synchronize });
  }
}

describe('offloaded inputs of layers', function () {
  this.timeout(20_000);

  for (const [name, each] of Object.entries(cases)) {
    it(`give the same losses, norms and parameters, bit for bit: ${name}`, async () => {
      const numSteps = each.inBackward ? 20 : 3;
      const expected = await trained(each, base, { numSteps });
      for (const K of each.inBackward ? [L - 1] : [1, L]) {
        const { results, parameters } = await trained(each, offloading(K), { numSteps });
        assert.deepEqual(results, expected.results, `${K} of ${L}`);
        assert.deepEqual(parameters, expected.parameters, `${K} of ${L}`);
      }
    });

    itOnCpu(`also where other rungs keep inputs: ${name}`, async () => {
      for (const rung of others) {
        const expected = await trained(each, rung);
        const { results, parameters } = await withLateCopies(() => trained(each, { ...rung, offloadedInputs: 3 }));
        assert.deepEqual(results, expected.results, JSON.stringify(rung));
        assert.deepEqual(parameters, expected.parameters, JSON.stringify(rung));
      }
    });

    itOnCpu(`also where copies run as late as the waits allow: ${name}`, async () => {
      const expected = await trained(each, base);
      for (const K of [2, L]) {
        const { results, parameters } = await withLateCopies(() => trained(each, offloading(K)));
        assert.deepEqual(results, expected.results, `${K} of ${L}`);
        assert.deepEqual(parameters, expected.parameters, `${K} of ${L}`);
      }
    });

    it(`take what meta says of device and host, to the byte: ${name}`, async () => {
      const policies = [...[0, 2, L].map(offloading), ...others.map((rung) => ({ ...rung, offloadedInputs: 2 }))];
      for (const policy of policies) {
        const K = policy.offloadedInputs!;
        const { memory } = await trained(each, policy, { numSteps: 1, shorter: 0 });
        const { dtype = 'float32', isPacked, lora, accumulationSteps, inBackward, stateBits } = each;
        using device = openTestDevice({ deterministic: true });
        const predicted = simulateStep({
          config: decoderConfig({ ...tinyLlama, num_hidden_layers: L }),
          B: 1,
          T,
          policy,
          dtype,
          isPacked,
          lora: lora ? { rank: 4, dropout: 0.25 } : null,
          accumulationSteps,
          inBackward,
          stateBits,
          masterWeights: dtype === 'bfloat16' ? !stateBits : undefined,
          like: device.target,
        });
        assert.equal(memory.peakBytes, predicted.peakBytes);
        assert.equal(memory.reservedBytes, predicted.reservedBytes);
        assert.equal(memory.hostBytes, predicted.hostBytes);
        const slot = Math.ceil((T * C * (dtype === 'bfloat16' ? 2 : 4)) / 512) * 512;
        assert.equal(memory.hostBytes, K * slot);
      }
    });
  }

  it('leave two of them on the device at once, and none after the forward', () => {
    const slot = T * C * 4;
    const traced = (policy: StepPolicy) => {
      using device = openDevice('meta', { hostMemoryLimit: 2 ** 24 });
      using model = modelOn(device, {});
      const all = kernels as unknown as Record<string, (...args: unknown[]) => void>;
      const names = ['chunked_cross_entropy', 'attention_backward'];
      const live: { activation: number; checkpoint: number }[] = [];
      const real = names.map((name) => [name, all[name]!] as const);
      for (const [name, kernel] of real) {
        all[name] = (...args) => {
          live.push(device.memory().live);
          kernel(...args);
        };
      }
      try {
        const tape = new Tape();
        using batch = toDisposable(toDevice(batchOf(1, T), device));
        using loss = tape.run(() => nextTokenLoss(model, batch, { policy }).loss);
        tape.backward(loss);
      } finally {
        for (const [name, kernel] of real) all[name] = kernel;
      }
      return live;
    };
    const kept = traced(base);
    for (const K of [2, L]) {
      const [atLoss, ...backwards] = traced(offloading(K));
      assert.equal(Math.round((kept[0]!.activation - atLoss!.activation) / slot), K);
      assert.equal(atLoss!.checkpoint, 0);
      const inputs = backwards.map(({ checkpoint }) => Math.round(checkpoint / slot));
      // of the layer, where it was offloaded, and of the one before it
      const expected = backwards.map((_, i) => (L - 1 - i < K ? 1 : 0) + (L - 2 - i < K && i < L - 1 ? 1 : 0));
      assert.deepEqual(inputs, expected, `${K} of ${L}`);
    }
  });
});

describe('host memory of a step', () => {
  const bytes = 3 * Math.ceil((T * C * 4) / 512) * 512;

  it('that is short is an error before anything changes; a smaller step succeeds', async () => {
    using device = openTestDevice({ hostMemoryLimit: bytes - 1 });
    using model = modelOn(device, {});
    using optimizer = new AdamW(model.trainableParameters());
    using step = new TrainStep(model, optimizer, { policy: offloading(3) });
    const before = await model.head.toFloat32();
    const { liveBytes } = device.memory();
    await assert.rejects(step.run([batchOf(1, T)], { learningRate: 1 }), (error: Error) => {
      assert.ok(error instanceof OutOfMemoryError);
      assert.match(error.message, /out of host memory: .* for inputs of layers do not fit in hostMemoryLimit/);
      return true;
    });
    assert.deepEqual(await model.head.toFloat32(), before);
    assert.deepEqual([device.memory().liveBytes, device.memory().hostBytes], [liveBytes, 0]);
    const { loss } = await step.run([batchOf(1, T - 9)], { learningRate: 1 });
    assert.ok(Number.isFinite(await loss));
    assert.notDeepEqual(await model.head.toFloat32(), before);
  });

  it('is not taken without a tape, and given back by a tape without a backward', async () => {
    using device = openTestDevice({ hostMemoryLimit: bytes });
    using model = modelOn(device, {});
    const policy = offloading(3);
    using batch = toDisposable(toDevice(batchOf(1, T), device));
    noGrad(() => nextTokenLoss(model, batch, { policy }).loss).dispose();
    assert.equal(device.memory().hostBytes, 0);
    const tape = new Tape();
    using loss = tape.run(() => nextTokenLoss(model, batch, { policy }).loss);
    assert.equal(device.host.liveBytes, bytes);
    assert.throws(
      () => new Tape().run(() => nextTokenLoss(model, batch, { policy }).loss),
      /more do not fit in the slab of .* in use by another forward: run its backward, or dispose its tape, first/,
    );
    tape.dispose();
    assert.equal(device.host.liveBytes, 0);
    assert.ok(Number.isFinite(await loss.item()));
  });

  it('is for layers, as many as there are, on a device that allows some', () => {
    using device = openTestDevice();
    using model = modelOn(device, {});
    using batch = toDisposable(toDevice(batchOf(1, T), device));
    const fails = (policy: StepPolicy, message: RegExp) =>
      assert.throws(() => new Tape().run(() => nextTokenLoss(model, batch, { policy }).loss), message);
    fails({ ...offloading(2), recompute: 'none' }, /offloadedInputs 2 is for recompute 'attention'.* got 'none'/);
    fails(
      { ...offloading(4), recompute: 'segments', slots: 3 },
      /offloadedInputs must be an integer in \[0, 3\], got 4/,
    );
    fails(offloading(L + 1), /offloadedInputs must be an integer in \[0, 5\], got 6/);
    fails(offloading(-1), /offloadedInputs must be an integer in \[0, 5\], got -1/);
    fails(offloading(1), /do not fit in hostMemoryLimit 0 B/);
  });

  itOnCpu(
    'and of the device, given back while a copy is under way, is written by nobody else before its end',
    async () => {
      await withLateCopies(async () => {
        using device = openTestDevice({ hostMemoryLimit: bytes });
        using model = modelOn(device, {});
        using batch = toDisposable(toDevice(batchOf(1, T), device));
        const all = kernels as unknown as Record<string, (...args: unknown[]) => void>;
        const { attention_backward: real } = all;
        let numCalls = 0;
        all.attention_backward = (...args) => {
          numCalls += 1;
          if (numCalls === 2) throw new Error('stopped in layer 3, while the input of layer 2 is copied back');
          real!(...args);
        };
        try {
          const tape = new Tape();
          using loss = tape.run(() => nextTokenLoss(model, batch, { policy: offloading(3) }).loss);
          assert.throws(() => tape.backward(loss), /stopped in layer 3/);
        } finally {
          all.attention_backward = real!;
        }
        model.zeroGrad();
        assert.equal(device.host.liveBytes, 0);
        const { liveBytes, reservedBytes } = device.memory();
        using rest = zeros([Math.floor((reservedBytes - liveBytes) / 8)], { device });
        await device.synchronize(); // all copies run
        assert.ok((await rest.toFloat32()).every((x) => x === 0));
      });
    },
  );
});

/** A batch that `using` frees. */
function toDisposable<T extends object>(batch: T): T & Disposable {
  const free = () => {
    for (const part of Object.values(batch)) if (part instanceof Object && 'dispose' in part) part.dispose();
  };
  return Object.assign(batch, { [Symbol.dispose]: free });
}
