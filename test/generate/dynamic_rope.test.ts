// Dynamic rope in generation: one base for all pieces of a prompt, another one for each token after it, as transformers has it.
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
  it('makes the same of a prompt whatever its pieces are: what a whole forward does', async () => {
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
