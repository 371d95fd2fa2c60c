// Models with projections in 4 bits: what they compute is what the dequantised weights give, bit for bit on the CPU.
import assert from 'node:assert/strict';
import {
  AdamW,
  addLora,
  Decoder,
  type Dtype,
  decoderConfig,
  dequantizeNf4,
  loadModel,
  mergeLora,
  nextTokenLoss,
  QuantizedWeight,
  quantizeNf4,
  type StepPolicy,
  saveModel,
  simulateStep,
  Tape,
  TrainStep,
  tidy,
} from '../../lib/index.ts';
import { toDevice } from '../../lib/models/batch.ts';
import { kernels } from '../../lib/runtime/native.ts';
import { openTestDevice } from '../support/devices.ts';
import { integers } from '../support/random.ts';
import { newFolder, tinyLlama, tinyModelFolder } from '../support/runs.ts';

const models = [
  { ...tinyLlama, num_hidden_layers: 3 },
  { ...tinyLlama, model_type: 'gemma2', sliding_window: 33, query_pre_attn_scalar: 8 },
  { ...tinyLlama, model_type: 'qwen2', tie_word_embeddings: true },
  { ...tinyLlama, model_type: 'seed_oss', mlp_bias: true },
  { ...tinyLlama, model_type: 'phi3' },
];
const policies: StepPolicy[] = [
  { mlpChunkSize: 80, lossChunkSize: 80, mlpSave: 'gateUp', recompute: 'none' },
  { mlpChunkSize: 24, lossChunkSize: 24, mlpSave: 'input', recompute: 'attention' },
  { mlpChunkSize: 24, lossChunkSize: 24, mlpSave: 'input', recompute: 'layer' },
  { mlpChunkSize: 24, lossChunkSize: 24, mlpSave: 'input', recompute: 'segments', slots: 2 },
];
const N = 77;
const batch = { inputs: integers(N, 256, 1), targets: integers(N, 256, 2), T: N };
const quantized = (source: typeof tinyLlama) => decoderConfig(source, { quantization: 'nf4' });

/** Adapters of rank 3 whose products are not zero. */
function giveAdapters(model: Decoder): void {
  const { adapters } = addLora(model, { rank: 3, seed: 4, dropout: 0.1 });
  for (const { b, op } of adapters.values()) kernels.random_normal(b, 0, 0.1, 9, op, 0);
}

/** The loss, and the gradients of all adapters. */
async function computed(model: Decoder, policy: StepPolicy) {
  const tape = new Tape();
  using loss = tidy(() => {
    const onDevice = toDevice(batch, model.device);
    const { loss } = tape.run(() => nextTokenLoss(model, onDevice, { policy, dropout: { seed: 5, step: 6 } }));
    tape.backward(loss);
    return loss;
  });
  const found = [await loss.data()];
  for (const { name, grad } of model.trainableParameters()) {
    assert.ok(grad, `${name} has a gradient`);
    found.push(await grad.data());
  }
  assert.ok(found.every((values) => values.some((value) => value !== 0)));
  return found;
}

describe('a model with projections in 4 bits', () => {
  for (const dtype of ['float32', 'bfloat16'] as Dtype[]) {
    for (const source of models) {
      it(`has the loss and the adapters' gradients of its dequantised weights: ${source.model_type}, ${dtype}`, async () => {
        using device = openTestDevice();
        using model = new Decoder(quantized(source), { device, dtype }).initialize(1);
        using plain = new Decoder(quantized(source), { device, dtype }).initialize(1);
        plain.dequantize();
        giveAdapters(model);
        giveAdapters(plain);
        for (const policy of policies) {
          if (policy.slots && source.num_hidden_layers < 3) continue;
          assert.deepEqual(await computed(model, policy), await computed(plain, policy), policy.recompute);
          model.zeroGrad();
          plain.zeroGrad();
        }
      });
    }
  }

  it('has the same weights as quantising those of the same seed gives; dequantize makes parameters of them, in order', async () => {
    using device = openTestDevice();
    for (const dtype of ['float32', 'bfloat16'] as const) {
      using plain = new Decoder(decoderConfig(tinyLlama), { device, dtype }).initialize(3);
      using model = new Decoder(quantized(tinyLlama), { device, dtype }).initialize(3);
      const names = [...plain.namedParameters().keys()];
      const projections = names.filter((name) => name.includes('_proj'));
      assert.equal(projections.length, 14);
      assert.deepEqual(
        [...model.weights()].map(([name]) => name),
        names,
      );
      assert.deepEqual(
        [...model.weights()].filter(([, weight]) => weight instanceof QuantizedWeight).map(([name]) => name),
        projections,
      );
      assert.equal(model.numParameters(), plain.numParameters());
      model.dequantize();
      assert.equal(model.config.quantization, null);
      assert.deepEqual([...model.namedParameters().keys()], names);
      for (const [name, weight] of plain.namedParameters()) {
        using expected = tidy(() =>
          projections.includes(name) ? dequantizeNf4(quantizeNf4(weight), weight.shape, dtype) : weight.alias(),
        );
        assert.deepEqual(await model.namedParameters().get(name)!.data(), await expected.data(), name);
      }
      assert.ok(
        [...model.projections()].every(([path, weight]) => model.namedParameters().get(`${path}.weight`) === weight),
      );
    }
  });

  it('is quantised while it is read, one tensor at a time', async () => {
    const folder = await tinyModelFolder({ num_hidden_layers: 6 });
    using device = openTestDevice();
    using model = await loadModel(folder, { device, quantization: 'nf4' });
    const { liveBytes, peakBytes } = device.memory();
    using plain = await loadModel(folder, { device });
    const largest = 88 * 32;
    assert.ok(peakBytes - liveBytes <= 4 * (largest + largest / 64) + 512, `${peakBytes - liveBytes}`);
    for (const [name, weight] of model.weights()) {
      const original = plain.namedParameters().get(name)!;
      if (!(weight instanceof QuantizedWeight)) {
        assert.deepEqual(await weight.data(), await original.data(), name);
        continue;
      }
      const expected = tidy(() => quantizeNf4(original));
      for (const [part, tensor] of Object.entries(weight.tensors)) {
        assert.deepEqual(await tensor.data(), await expected[part as keyof typeof expected].data(), `${name}.${part}`);
      }
      for (const tensor of Object.values(expected)) tensor.dispose();
    }
  });

  it('is trained by adapters alone', async () => {
    using device = openTestDevice();
    const config = quantized(tinyLlama);
    using model = new Decoder(config, { device }).initialize(1);
    const refusal = /trains model\.embed_tokens\.weight .*in 4 bits \(nf4\).*Train adapters/;
    using all = new AdamW(model.trainableParameters());
    assert.throws(() => new TrainStep(model, all), refusal);
    const policy = policies[0]!;
    assert.throws(() => simulateStep({ config, B: 1, T: 8, policy }), refusal);
    addLora(model, { rank: 2 });
    using ofAdapters = new AdamW(model.trainableParameters());
    using step = new TrainStep(model, ofAdapters, { policy });
    const { loss } = await step.run([batch], { learningRate: 1e-3 });
    assert.ok(Number.isFinite(await loss));
    model.unfreeze((name) => name === 'model.norm.weight');
    using more = new AdamW(model.trainableParameters());
    assert.throws(() => new TrainStep(model, more), /trains model\.norm\.weight/);
  });

  it('is not saved, but adapters are merged into its dequantised weights', async () => {
    using device = openTestDevice();
    using model = new Decoder(quantized(tinyLlama), { device }).initialize(1);
    using plain = new Decoder(quantized(tinyLlama), { device }).initialize(1);
    const folder = newFolder();
    await assert.rejects(
      saveModel(model, folder),
      /saveModel: the model's projections are in 4 bits \(nf4\).*mergeLora/,
    );
    plain.dequantize();
    for (const each of [model, plain]) {
      giveAdapters(each);
      mergeLora(each);
    }
    for (const [name, parameter] of plain.namedParameters()) {
      assert.deepEqual(await model.namedParameters().get(name)!.data(), await parameter.data(), name);
    }
    assert.ok(model.parameters().every(({ requiresGrad }) => requiresGrad));
    await saveModel(model, folder);
    using again = await loadModel(folder, { device });
    assert.deepEqual(await again.head.data(), await model.head.data());
  });

  it('refuses another method', () => {
    assert.throws(
      () => decoderConfig(tinyLlama, { quantization: 'fp4' as never }),
      /RangeError: config\.json: quantization must be 'nf4' or null, got "fp4"/,
    );
  });
});
