// Rotary frequencies that depend on the length, in generation: with dynamic rope one base for all pieces of a prompt, another one for each
// token after it; with longrope the cache is made anew where the text becomes long. So does transformers.
import assert from 'node:assert/strict';
import {
  Decoder,
  decoderConfig,
  generate,
  KeyValueCache,
  loadTokenizer,
  noGrad,
  plainPolicy,
  tensor,
  tidy,
} from '../../lib/index.ts';
import { assertClose } from '../support/compare.ts';
import { openTestDevice } from '../support/devices.ts';
import { tinyLlama } from '../support/runs.ts';

const [theta, factor, maxPositions, D, N] = [10000, 4, 32, 8, 60];
const dynamic = {
  ...tinyLlama,
  initializer_range: 0.3,
  max_position_embeddings: maxPositions,
  rope_scaling: { type: 'dynamic', factor },
};
const ids = Int32Array.from({ length: N + 2 }, (_, i) => (i * 37) % 256);

describe('dynamic rope', () => {
  it('continues a prompt as one whole forward does, in whatever pieces the prompt comes', async () => {
    using device = openTestDevice();
    using model = new Decoder(decoderConfig(dynamic), { device }).initialize(1);
    const expected = await noGrad(() =>
      tidy(() => {
        const inputs = tensor(ids.subarray(0, N), { device });
        return model.logits({ inputs, targets: inputs, T: N }, plainPolicy(N));
      }),
    );
    const logits = (await expected.toFloat32()).subarray((N - 1) * 256);
    expected.dispose();
    const tokenizer = await loadTokenizer('bytes');
    const best = logits.indexOf(Math.max(...logits));
    const logProbability = logits[best]! - Math.log(logits.reduce((sum, value) => sum + Math.exp(value), 0));
    let others: number[] | null = null;
    for (const chunkSize of [N, 16, 7, 1]) {
      const found: { id: number; logProbability: number }[] = [];
      const options = { chunkSize, maxTokens: 4, temperature: 0 };
      for await (const token of generate(model, tokenizer, [...ids.subarray(0, N)], options)) found.push(token);
      assert.equal(found[0]!.id, best);
      assert.ok(Math.abs(found[0]!.logProbability - logProbability) < 1e-4, `${found[0]!.logProbability}`);
      others ??= found.map((token) => token.logProbability);
      assertClose(
        Float64Array.from(found, (token) => token.logProbability),
        others,
        1e-4,
        `chunkSize ${chunkSize}`,
      );
    }
  });

  it('has the base of the whole length for each token after the prompt, and keeps the keys that are there', async () => {
    using device = openTestDevice();
    using model = new Decoder(decoderConfig(dynamic), { device }).initialize(1);
    /** The same weights, with the fixed base that dynamic rope has at this length (NTK-aware scaling). */
    const at = (length: number) => {
      const base = theta * ((factor * length) / maxPositions - (factor - 1)) ** (D / (D - 2));
      const { rope_scaling: _, ...config } = { ...dynamic, rope_theta: base };
      return new Decoder(decoderConfig(config), { device }).initialize(1);
    };
    using cache = new KeyValueCache(model, N + 2);
    using expectedCache = new KeyValueCache(model, N + 2);
    using prompt = at(N);
    await model.decode(ids.subarray(0, 20), cache, { length: N });
    await model.decode(ids.subarray(20, N), cache, { length: N });
    await prompt.decode(ids.subarray(0, N), expectedCache);
    const live = device.memory().liveBytes;
    for (const length of [N + 1, N + 2]) {
      const token = ids.subarray(length - 1, length);
      const found = await model.decode(token, cache);
      const reference = at(length);
      assertClose(found, await reference.decode(token, expectedCache), 1e-5, `logits at ${length}`);
      reference.dispose();
    }
    assert.equal(device.memory().liveBytes, live, 'one table at a time');
  });
});

describe('longrope', () => {
  const longrope = {
    ...tinyLlama,
    model_type: 'phi3',
    architectures: undefined,
    initializer_range: 0.3,
    original_max_position_embeddings: maxPositions,
    max_position_embeddings: 4 * maxPositions,
    rope_scaling: { type: 'longrope', short_factor: [1, 1.1, 1.2, 1.3], long_factor: [2, 3, 4, 5] },
  };

  it('generates what whole forwards do, before, at and after its length', async () => {
    using device = openTestDevice();
    using model = new Decoder(decoderConfig(longrope), { device }).initialize(1);
    const all = [...ids.subarray(0, maxPositions - 3)];
    const tokenizer = await loadTokenizer('bytes');
    const found: number[] = [];
    for await (const { id, logProbability } of generate(model, tokenizer, all, {
      maxTokens: 7,
      temperature: 0,
      chunkSize: 9,
      stopIds: [],
    })) {
      const T = all.length + found.length;
      const expected = noGrad(() =>
        tidy(() => {
          const inputs = tensor(Int32Array.from([...all, ...found]), { device });
          return model.logits({ inputs, targets: inputs, T }, plainPolicy(T));
        }),
      );
      const logits = (await expected.toFloat32()).subarray((T - 1) * 256);
      expected.dispose();
      assert.equal(id, logits.indexOf(Math.max(...logits)), `token ${T}`);
      const total = Math.log(logits.reduce((sum, value) => sum + Math.exp(value), 0));
      assert.ok(Math.abs(logProbability - (logits[id]! - total)) < 1e-4, `token ${T}`);
      found.push(id);
    }
    assert.equal(found.length, 7);
  });

  it('refuses to continue short keys in a long text, and packed documents in long sequences', async () => {
    using device = openTestDevice();
    using model = new Decoder(decoderConfig(longrope), { device }).initialize(1);
    using cache = new KeyValueCache(model, N);
    await model.decode(ids.subarray(0, maxPositions), cache);
    await assert.rejects(model.decode(ids.subarray(0, 1), cache), /longrope has other frequencies for a text of 33/);
    const logits = (T: number) =>
      noGrad(() =>
        tidy(() => {
          const inputs = tensor(ids.subarray(0, T), { device });
          const documentStart = tensor(new Int32Array(T), { device });
          model.logits({ inputs, targets: inputs, T, documentStart }, plainPolicy(T)).dispose();
        }),
      );
    logits(maxPositions);
    assert.throws(() => logits(maxPositions + 1), /longrope beyond the length of 32 needs one document per sequence/);
  });
});
