// SmolLM3 and Granite in f64 against their formulas, written out in JavaScript: logits, loss and gradients.
import assert from 'node:assert/strict';
import { Decoder, decoderConfig, nextTokenLoss, noGrad, Tape, type Tensor, tensor, tidy } from '../../lib/index.ts';
import { assertClose } from '../support/compare.ts';
import { itOnCpu, openTestDevice } from '../support/devices.ts';
import { type PlainSource, plainLogits, plainLoss } from '../support/plain_decoder.ts';
import { integers, normals } from '../support/random.ts';

const T = 7;
const V = 19;
const sizes = {
  hidden_size: 12,
  intermediate_size: 10,
  num_attention_heads: 3,
  num_key_value_heads: 1,
  vocab_size: V,
  rms_norm_eps: 1e-5,
};
const multipliers = {
  embedding_multiplier: 1.7,
  attention_multiplier: 0.61,
  residual_multiplier: 0.23,
  logits_scaling: 2.9,
};
const granite = { model_type: 'granite', ...sizes, num_hidden_layers: 2, rope_theta: 100, ...multipliers };
const smollm3 = { model_type: 'smollm3', ...sizes, num_hidden_layers: 4 };

/** config.json, and what the formulas take for the fields that it leaves to their defaults. */
const cases: Record<string, [source: Record<string, unknown>, plain: PlainSource]> = {
  'SmolLM3, every fourth layer without positions': [
    { ...smollm3 },
    { ...smollm3, rope_theta: 2e6, no_rope_layers: [1, 1, 1, 0] },
  ],
  'SmolLM3, every second, which has a window': [
    { ...smollm3, rope_theta: 50, no_rope_layer_interval: 2, use_sliding_window: true, sliding_window: 3 },
    { ...smollm3, rope_theta: 50, no_rope_layers: [1, 0, 1, 0], sliding_window: 3 },
  ],
  'SmolLM3, layers one by one, biases, a head of its own': [
    { ...smollm3, rope_theta: 50, no_rope_layers: [0, 1, 0, 0, 1], attention_bias: true, tie_word_embeddings: false },
    { ...smollm3, rope_theta: 50, no_rope_layers: [0, 1, 0, 0] },
  ],
  'Granite, a head of its own': [granite, granite],
  'Granite, tied, with biases': [
    { ...granite, tie_word_embeddings: true, attention_bias: true, mlp_bias: true },
    granite,
  ],
  'Granite, without its factors': [
    { ...granite, ...Object.fromEntries(Object.keys(multipliers).map((name) => [name, undefined])) },
    { ...granite, embedding_multiplier: 1, attention_multiplier: 1, residual_multiplier: 1, logits_scaling: 1 },
  ],
};

describe('formulas in f64', () => {
  for (const [name, [source, plain]] of Object.entries(cases)) {
    itOnCpu(name, async () => {
      using device = openTestDevice();
      using model = new Decoder(decoderConfig(source), { device, dtype: 'float64' });
      const weights = new Map<string, Float64Array>();
      for (const [i, [parameterName, parameter]] of [...model.namedParameters()].entries()) {
        weights.set(parameterName, normals(parameter.size, 40 + i, 0.6));
        parameter.write(weights.get(parameterName)!);
      }
      const [ids, targets] = [integers(T, V, 1), integers(T, V, 2)];
      const policy = { mlpChunkSize: 3, lossChunkSize: 4, mlpSave: 'input', recompute: 'attention' } as const;
      const batch = { inputs: tensor(ids, { device }), targets: tensor(targets, { device }), T };
      const valuesOf = async (tensor: Tensor) => (await tensor.data()) as Float64Array;

      const logits = noGrad(() => tidy(() => model.logits(batch, policy)));
      assertClose(await valuesOf(logits), plainLogits(plain, weights, ids).flat(), 1e-13, 'logits');
      logits.dispose();

      const tape = new Tape();
      const loss = tape.run(() => tidy(() => nextTokenLoss(model, batch, { policy }).loss));
      tape.backward(loss);
      const lossOf = () => plainLoss(plainLogits(plain, weights, ids), targets);
      assertClose([await loss.item()], [lossOf()], 1e-13, 'loss');
      loss.dispose();

      // Along a random direction for each parameter, by central differences of the formula.
      for (const [i, [parameterName, parameter]] of [...model.namedParameters()].entries()) {
        const values = weights.get(parameterName)!;
        const direction = normals(values.length, 400 + i);
        const moved = (by: number) => {
          weights.set(
            parameterName,
            values.map((value, j) => value + by * direction[j]!),
          );
          return lossOf();
        };
        const expected = (moved(1e-5) - moved(-1e-5)) / 2e-5;
        weights.set(parameterName, values);
        const gradient = await valuesOf(parameter.grad!);
        const found = gradient.reduce((sum, value, j) => sum + value * direction[j]!, 0);
        const difference = Math.abs(found - expected);
        assert.ok(difference <= 1e-7 * Math.abs(expected) + 1e-9, `${parameterName}: ${found}, by formula ${expected}`);
      }
    });
  }
});
