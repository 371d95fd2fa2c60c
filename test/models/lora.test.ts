// LoRA: gradients, masks, memory, merging, files.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  AdamW,
  addLora,
  type Batch,
  Decoder,
  type Device,
  decoderConfig,
  type LoraModule,
  type LoraOptions,
  nextTokenLoss,
  noGrad,
  openDevice,
  parseConfig,
  type StepPolicy,
  simulateStep,
  Tape,
  TrainStep,
  tensor,
  tidy,
  train,
} from '../../lib/index.ts';
import { LORA_MODULES } from '../../lib/models/adapter.ts';
import { bytesByName } from '../support/adapters.ts';
import { assertClose } from '../support/compare.ts';
import { itOnCpu, openTestDevice } from '../support/devices.ts';
import { integers, normals } from '../support/random.ts';
import { newFolder, tinyLlama, tinyRun } from '../support/runs.ts';

const all = { rank: 4, alpha: 6, modules: LORA_MODULES };
const policies: StepPolicy[] = [
  { mlpChunkSize: 100, lossChunkSize: 100, mlpSave: 'gateUp', recompute: 'none' },
  { mlpChunkSize: 7, lossChunkSize: 11, mlpSave: 'input', recompute: 'attention' },
  { mlpChunkSize: 13, lossChunkSize: 5, mlpSave: 'gateUp', recompute: 'layer' },
];

function batchOf(device: Device): Batch {
  const ids = integers(60, 256, 1);
  return { inputs: tensor(ids, { device }), targets: tensor(ids, { device }), T: 30 };
}

async function lossOf(model: Decoder): Promise<number> {
  const loss = noGrad(() => tidy(() => nextTokenLoss(model, batchOf(model.device), { policy: policies[1]! }).loss));
  const value = await loss.item();
  loss.dispose();
  return value;
}

/** Adapters with a B that is not zero. */
function adapted(device: Device, options: LoraOptions = all, dtype: 'float32' | 'float64' = 'float32'): Decoder {
  const model = new Decoder(decoderConfig(tinyLlama), { device, dtype }).initialize(1);
  const { adapters } = addLora(model, options);
  let seed = 7;
  for (const { b } of adapters.values()) {
    const values = normals(b.size, seed++, 0.1);
    b.write(dtype === 'float64' ? values : Float32Array.from(values));
  }
  return model;
}

describe('addLora', () => {
  it('changes nothing at first', async () => {
    using device = openTestDevice();
    using model = new Decoder(decoderConfig(tinyLlama), { device }).initialize(1);
    const before = await lossOf(model);
    addLora(model, all);
    assert.equal(await lossOf(model), before);
  });

  it('has the same gradients under every policy, dropout on', async () => {
    using device = openTestDevice();
    const expected = new Map<string, Float32Array>();
    for (const policy of policies) {
      using model = adapted(device, { ...all, dropout: 0.2 });
      const tape = new Tape();
      tidy(() => {
        const batch = batchOf(device);
        tape.backward(tape.run(() => nextTokenLoss(model, batch, { policy, dropout: { seed: 3, step: 4 } }).loss));
      });
      for (const parameter of model.trainableParameters()) {
        const gradient = await parameter.grad!.toFloat32();
        const first = expected.get(parameter.name!);
        if (first) assertClose(gradient, first, 2e-5, parameter.name!);
        else expected.set(parameter.name!, gradient);
      }
    }
    assert.equal(expected.size, 2 * (7 * 2 + 1));
  });

  itOnCpu('has the gradients of central differences in the whole model', async () => {
    using device = openTestDevice();
    using model = adapted(device, all, 'float64');
    const lossTensor = () => tidy(() => nextTokenLoss(model, batchOf(device), { policy: policies[1]! }).loss);
    const tape = new Tape();
    const loss = tape.run(lossTensor);
    tape.backward(loss);
    loss.dispose();
    const step = 1e-5;
    for (const parameter of model.trainableParameters()) {
      const values = (await parameter.data()) as Float64Array;
      const direction = normals(parameter.size, 5);
      const moved = async (by: number) => {
        parameter.write(values.map((value, i) => value + by * direction[i]!));
        return await lossOf(model);
      };
      const expected = ((await moved(step)) - (await moved(-step))) / (2 * step);
      parameter.write(values);
      const found = ((await parameter.grad!.data()) as Float64Array).reduce(
        (sum, value, i) => sum + value * direction[i]!,
        0,
      );
      assert.ok(
        Math.abs(found - expected) <= 1e-7 * Math.abs(expected) + 1e-9,
        `${parameter.name}: ${found}, ${expected}`,
      );
    }
  });

  it('keeps no gradient and no optimizer state of the model, one chunk of the MLP, and the bytes that meta says', async () => {
    for (const lora of [
      all,
      { rank: 3, dropout: 0.1 },
      { rank: 2, modules: ['q_proj', 'down_proj'] as LoraModule[] },
    ]) {
      const policy = policies[1]!;
      using device = openTestDevice();
      using model = new Decoder(decoderConfig(tinyLlama), { device }).initialize(1);
      const { adapters } = addLora(model, lora);
      using optimizer = new AdamW(model.trainableParameters());
      const trained = [...adapters.values()].reduce((sum, { a, b }) => sum + a.size + b.size, 0);
      assert.equal(
        model.trainableParameters().reduce((sum, { size }) => sum + size, 0),
        trained,
      );
      using step = new TrainStep(model, optimizer, { policy });
      device.arena.resetPeak();
      const ids = integers(60, 256, 1);
      await step.run([{ inputs: ids, targets: ids, T: 30 }], { learningRate: 1e-3 });
      const simulated = simulateStep({ config: model.config, B: 2, T: 30, policy, lora, like: device.target });
      assert.equal(device.memory().peakBytes, simulated.peakBytes);
      const full = simulateStep({ config: model.config, B: 2, T: 30, policy, like: device.target });
      assert.ok(simulated.live.optimizer < full.live.optimizer / 2);
    }
    const config = decoderConfig({ ...tinyLlama, intermediate_size: 4096 });
    const peak = (mlpChunkSize: number) =>
      simulateStep({ config, B: 1, T: 4096, policy: { ...policies[1]!, mlpChunkSize }, lora: { rank: 8 } }).peakBytes;
    assert.ok(peak(4096) - peak(128) > 3 * 4096 * 4096 * 4 * 0.9, 'gate, up and their product of all but one chunk');
  });

  it('refuses options that make no adapter', () => {
    using device = openDevice('meta');
    using model = new Decoder(decoderConfig(tinyLlama), { device });
    assert.throws(() => addLora(model, { rank: 0 }), /addLora: rank must be a positive integer, got 0/);
    assert.throws(() => addLora(model, { rank: 2, dropout: 1 }), /addLora: dropout must be .* got 1/);
    assert.throws(
      () => addLora(model, { rank: 2, modules: ['c_attn' as LoraModule] }),
      /module 'c_attn' is none of q_proj/,
    );
    addLora(model, { rank: 2 });
    assert.throws(() => addLora(model, { rank: 2 }), /already has adapters/);
  });
});

describe('a run with adapters', () => {
  it('lowers the loss, leaves the model as it is, and can be continued bit for bit', async () => {
    const options = { maxSteps: 12, lora: { rank: 4, dropout: 0.1 }, optimizer: { learningRate: 2e-2 }, epochs: 3 };
    const config = tinyRun(options);
    const whole = await train(parseConfig(config));
    assert.ok(whole.metrics.at(-1)!.loss < whole.metrics[0]!.loss - 0.3, `${whole.metrics.map(({ loss }) => loss)}`);
    const outDir = newFolder();
    const stop = new AbortController();
    const onStep = ({ step }: { step: number }) => step === 4 && stop.abort();
    await train(parseConfig({ ...config, outDir }), { signal: stop.signal, onStep });
    const again = await train(parseConfig({ ...config, outDir }), { resume: true });
    assert.deepEqual(
      again.metrics.map(({ loss }) => loss),
      whole.metrics.map(({ loss }) => loss),
    );
    const bytes = (folder: string) => readFile(join(folder, 'adapter_model.safetensors'));
    assert.ok((await bytes(outDir)).equals(await bytes(whole.outDir)));
  });

  it('can begin from an adapter, with its values, ranks and factors', async () => {
    const first = await train(
      parseConfig(
        tinyRun({
          maxSteps: 6,
          lora: { rank: 4, alpha: 7, dropout: 0.1, modules: ['q_proj', 'lm_head'], useRslora: true },
          optimizer: { learningRate: 5e-2 },
        }),
      ),
    );
    const lora = { from: first.outDir };
    const still = await train(parseConfig(tinyRun({ maxSteps: 1, lora, optimizer: { learningRate: 0 } })));
    for (const name of ['adapter_model.safetensors', 'adapter_config.json']) {
      assert.deepEqual(await readFile(join(still.outDir, name)), await readFile(join(first.outDir, name)), name);
    }
    const further = await train(parseConfig(tinyRun({ maxSteps: 6, lora, optimizer: { learningRate: 5e-2 } })));
    assert.ok(further.metrics[0]!.loss < first.metrics[0]!.loss - 0.1, 'begins where the first run ended');
    assert.ok(further.metrics.at(-1)!.loss < first.metrics.at(-1)!.loss);
    for (const [wrong, message] of [
      [{}, /lora: needs rank, for new adapters, or from/],
      [{ rank: 4, from: first.outDir }, /lora: needs rank, for new adapters, or from/],
      [{ from: first.outDir, alpha: 3 }, /lora: from excludes the other options/],
    ] as const) {
      assert.throws(() => parseConfig(tinyRun({ lora: wrong })), message);
    }
    await assert.rejects(train(parseConfig(tinyRun({ lora: { from: newFolder() } }))), /has no adapter_config.json/);
  });

  it("goes on in bf16 from an adapter's f32 values, and can be stopped and continued", async () => {
    const first = await train(parseConfig(tinyRun({ maxSteps: 2, lora: { rank: 4 } })));
    const bytes = (folder: string) => readFile(join(folder, 'adapter_model.safetensors'));
    const bf16 = { dtype: 'bfloat16' as const, lora: { from: first.outDir } };
    const still = await train(parseConfig(tinyRun({ ...bf16, maxSteps: 1, optimizer: { learningRate: 0 } })));
    assert.ok((await bytes(still.outDir)).equals(await bytes(first.outDir)), 'what was not trained comes back');
    // Steps of 1e-6 are lost where bf16 values are updated; from the rounded values, others than these would come out.
    const small = tinyRun({ ...bf16, maxSteps: 4, optimizer: { learningRate: 1e-6, weightDecay: 0 } });
    const whole = await train(parseConfig(small));
    const [before, after] = await Promise.all([first.outDir, whole.outDir].map(floatsOf));
    const moves = before!.map((value, i) => Math.abs(after![i]! - value));
    assert.ok(moves.every((move) => move < 1e-5) && moves.filter((move) => move > 1e-7).length > moves.length / 2);
    const outDir = newFolder();
    const stop = new AbortController();
    const onStep = ({ step }: { step: number }) => step === 2 && stop.abort();
    await train(parseConfig({ ...small, outDir }), { signal: stop.signal, onStep });
    await train(parseConfig({ ...small, outDir }), { resume: true });
    assert.ok((await bytes(outDir)).equals(await bytes(whole.outDir)));
  });
});

/** All values of an adapter in f32. */
async function floatsOf(folder: string): Promise<Float32Array> {
  const tensors = await bytesByName(join(folder, 'adapter_model.safetensors'));
  return new Float32Array(Uint8Array.from([...tensors.values()].flatMap((bytes) => [...bytes])).buffer);
}
