// Every family's decoder: gradients against central differences in f64, memory against `meta`.
import assert from 'node:assert/strict';
import {
  AdamW,
  type Batch,
  Decoder,
  type Device,
  type DeviceName,
  decoderConfig,
  nextTokenLoss,
  noGrad,
  openDevice,
  type StepPolicy,
  simulateStep,
  Tape,
  type Tensor,
  TrainStep,
  tensor,
  tidy,
} from '../../lib/index.ts';
import { assertClose } from '../support/compare.ts';
import { itOnCpu, openTestDevice, testDevice, valuesOf } from '../support/devices.ts';
import { integers, normals } from '../support/random.ts';

const tiny = {
  hidden_size: 12,
  intermediate_size: 20,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  head_dim: 6,
  vocab_size: 23,
  max_position_embeddings: 8,
  initializer_range: 0.3,
};
const sources = {
  llama: { model_type: 'llama', attention_bias: true },
  'llama, dynamic rope': { model_type: 'llama', rope_scaling: { type: 'dynamic', factor: 2 } },
  'llama, yarn': {
    model_type: 'llama',
    rope_scaling: { type: 'yarn', factor: 4, original_max_position_embeddings: 4, beta_fast: 2, beta_slow: 0.5 },
  },
  mistral: { model_type: 'mistral', sliding_window: 4 },
  qwen2: {
    model_type: 'qwen2',
    use_sliding_window: true,
    sliding_window: 5,
    max_window_layers: 1,
    tie_word_embeddings: true,
  },
  qwen3: { model_type: 'qwen3' },
  gemma2: {
    model_type: 'gemma2',
    sliding_window: 3,
    query_pre_attn_scalar: 5,
    attn_logit_softcapping: 0.8,
    final_logit_softcapping: 1.5,
  },
  smollm3: { model_type: 'smollm3', no_rope_layers: [0, 1], use_sliding_window: true, sliding_window: 4 },
  gemma3: {
    model_type: 'gemma3_text',
    sliding_window: 3,
    sliding_window_pattern: 2,
    query_pre_attn_scalar: 5,
    final_logit_softcapping: 1.5,
  },
  olmo2: { model_type: 'olmo2', attention_bias: true },
  exaone4: { model_type: 'exaone4', sliding_window: 4, sliding_window_pattern: 2 },
  seed_oss: { model_type: 'seed_oss', attention_out_bias: true, mlp_bias: true },
  ernie4_5: { model_type: 'ernie4_5', use_bias: true, tie_word_embeddings: false },
  hunyuan: {
    model_type: 'hunyuan_v1_dense',
    attention_bias: true,
    rope_scaling: { type: 'dynamic', factor: 1, alpha: 5 },
  },
  olmo3: {
    model_type: 'olmo3',
    sliding_window: 3,
    layer_types: ['sliding_attention', 'full_attention'],
    attention_bias: true,
    rope_parameters: {
      full_attention: { rope_type: 'linear', rope_theta: 50, factor: 2 },
      sliding_attention: { rope_type: 'default', rope_theta: 9 },
    },
  },
  'phi3, longrope': {
    model_type: 'phi3',
    partial_rotary_factor: 0.7,
    original_max_position_embeddings: 4,
    rope_scaling: { type: 'longrope', short_factor: [1, 1.5], long_factor: [2, 3] },
    sliding_window: 5,
    tie_word_embeddings: true,
  },
  glm4: { model_type: 'glm4', partial_rotary_factor: 0.34 },
  ministral3: {
    model_type: 'ministral3',
    sliding_window: 6,
    rope_parameters: {
      rope_type: 'yarn',
      rope_theta: 50,
      factor: 2,
      original_max_position_embeddings: 4,
      llama_4_scaling_beta: 0.7,
    },
  },
  gemma4: {
    model_type: 'gemma4_text',
    hidden_size_per_layer_input: 0,
    attention_k_eq_v: true,
    global_head_dim: 10,
    num_global_key_value_heads: 1,
    layer_types: ['sliding_attention', 'full_attention'],
    sliding_window: 3,
    final_logit_softcapping: 1.5,
  },
  granite: {
    model_type: 'granite',
    mlp_bias: true,
    embedding_multiplier: 1.7,
    attention_multiplier: 0.6,
    residual_multiplier: 0.3,
    logits_scaling: 0.7,
  },
};
const T = 11;
const policy: StepPolicy = { mlpChunkSize: 7, lossChunkSize: 5, mlpSave: 'input', recompute: 'attention' };

const hostBatch = { inputs: integers(2 * T, 23, 1), targets: integers(2 * T, 23, 2), T };

function batchOf(device: Device): Batch {
  const { inputs, targets } = hostBatch;
  return { inputs: tensor(inputs, { device }), targets: tensor(targets, { device }), T };
}

/** Numbers, in the parameter's dtype. */
function write(parameter: Tensor, values: Float32Array | Float64Array): void {
  parameter.write(parameter.dtype === 'float64' ? Float64Array.from(values) : Float32Array.from(values));
}

describe('families', () => {
  for (const [name, source] of Object.entries(sources)) {
    const config = decoderConfig({ ...tiny, ...source });
    const lossAndGradients = async (deviceName: DeviceName, dtype: 'float32' | 'float64') => {
      using device = openDevice(deviceName);
      using model = new Decoder(config, { device, dtype });
      const parameters = [...model.namedParameters()];
      for (const [i, [, parameter]] of parameters.entries()) {
        write(parameter, Float32Array.from(normals(parameter.size, 50 + i, 0.4)));
      }
      const tape = new Tape();
      using loss = tape.run(() => tidy(() => nextTokenLoss(model, batchOf(device), { policy }).loss));
      tape.backward(loss);
      const results = new Map([['loss', await valuesOf(loss)]]);
      for (const [parameterName, { grad }] of parameters) results.set(parameterName, await valuesOf(grad!));
      return results;
    };

    itOnCpu(`${name}: the gradient along random directions`, async () => {
      using device = openTestDevice();
      using model = new Decoder(config, { device, dtype: 'float64' });
      const parameters = [...model.namedParameters()];
      const values = parameters.map(([, parameter], i) => normals(parameter.size, 50 + i, 0.4));
      for (const [i, [, parameter]] of parameters.entries()) write(parameter, values[i]!);
      const lossOf = () => tidy(() => nextTokenLoss(model, batchOf(device), { policy }).loss);
      const tape = new Tape();
      const loss = tape.run(lossOf);
      tape.backward(loss);
      loss.dispose();
      const evaluate = async () => {
        const loss = noGrad(lossOf);
        const value = await loss.item();
        loss.dispose();
        return value;
      };
      const step = 1e-5;
      for (const [i, [parameterName, parameter]] of parameters.entries()) {
        const direction = normals(parameter.size, 500 + i);
        const moved = async (by: number) => {
          write(
            parameter,
            values[i]!.map((value, j) => value + by * direction[j]!),
          );
          return await evaluate();
        };
        const expected = ((await moved(step)) - (await moved(-step))) / (2 * step);
        write(parameter, values[i]!);
        const gradient = (await parameter.grad!.data()) as Float64Array;
        const found = gradient.reduce((sum, value, j) => sum + value * direction[j]!, 0);
        assert.ok(
          Math.abs(found - expected) <= 1e-7 * Math.abs(expected) + 1e-9,
          `${parameterName}: ${found}, by differences ${expected}`,
        );
      }
    });

    it(`${name}: loss and gradients in f32 are those of f64 on the CPU`, async () => {
      const [expected, found] = [
        await lossAndGradients('cpu', 'float64'),
        await lossAndGradients(testDevice, 'float32'),
      ];
      for (const [parameter, gradient] of found) assertClose(gradient, expected.get(parameter)!, 2e-5, parameter);
    });

    it(`${name}: 'meta' predicts the peak to the byte`, async () => {
      for (const recompute of ['none', 'attention', 'layer'] as const) {
        const step = { config, B: 2, T, dtype: 'bfloat16', policy: { ...policy, recompute } } as const;
        using device = openTestDevice();
        using model = new Decoder(config, { device, dtype: 'bfloat16' }).initialize(1);
        using optimizer = new AdamW(model.trainableParameters());
        using trainStep = new TrainStep(model, optimizer, { policy: step.policy });
        device.arena.resetPeak();
        await trainStep.run([hostBatch], { learningRate: 1e-3 });
        const simulated = simulateStep({ ...step, like: device.target });
        assert.equal(device.memory().peakBytes, simulated.peakBytes, recompute);
      }
    });
  }

  it('dynamic rope beyond its length refuses packed documents', () => {
    using device = openDevice('meta');
    using model = new Decoder(decoderConfig({ ...tiny, ...sources['llama, dynamic rope'] }), { device });
    const documentStart = tensor(new Int32Array(2 * T), { device });
    assert.throws(
      () => nextTokenLoss(model, { ...batchOf(device), documentStart }, { policy }),
      /dynamic rope beyond .* 8 .*T 11/,
    );
  });
});
