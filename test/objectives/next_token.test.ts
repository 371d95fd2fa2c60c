// Cross-entropy of next tokens as an objective, against the loss of whole logits.
import assert from 'node:assert/strict';
import {
  crossEntropy,
  Decoder,
  decoderConfig,
  nextToken,
  nextTokenLoss,
  noGrad,
  plainPolicy,
  tensor,
  tidy,
} from '../../lib/index.ts';
import { openTestDevice } from '../support/devices.ts';
import { integers } from '../support/random.ts';
import { tinyLlama } from '../support/runs.ts';

const T = 30;
const policy = { mlpChunkSize: 7, lossChunkSize: 7, mlpSave: 'input', recompute: 'none' } as const;
const inputs = integers(T, 256, 1);
const targets = integers(T, 256, 2).map((id, i) => (i < 4 ? -100 : id));

describe('next tokens', () => {
  it('count targets that are not ignored', () => {
    assert.equal(nextToken().count({ inputs, targets }), T - 4);
    assert.equal(nextToken().count({ inputs: [1, 2], targets: [-100, -100] }), 0);
  });

  for (const fields of [
    {},
    { model_type: 'gemma2', head_dim: 16, final_logit_softcapping: 0.1, initializer_range: 0.3 },
  ]) {
    it(`have the loss of whole logits: ${JSON.stringify(fields)}`, async () => {
      using device = openTestDevice();
      using model = new Decoder(decoderConfig({ ...tinyLlama, ...fields }), { device }).initialize(1);
      const batch = () => ({ inputs: tensor(inputs, { device }), targets: tensor(targets, { device }), T });
      const itemOf = async (fn: () => ReturnType<typeof nextTokenLoss>) => {
        using loss = noGrad(() => tidy(() => fn().loss));
        return await loss.item();
      };
      const whole = (options: Parameters<typeof crossEntropy>[2]) =>
        itemOf(() => crossEntropy(model.logits(batch(), plainPolicy(T)), tensor(targets, { device }), options));
      const close = (found: number, expected: number) =>
        assert.ok(Math.abs(found / expected - 1) < 2e-6, `${found} and ${expected}`);
      close(await itemOf(() => nextTokenLoss(model, batch(), { policy })), await whole({}));
      const options = { labelSmoothing: 0.2, zLoss: 0.1 };
      const expected = await whole({ ...options, reduction: 'sum' });
      const context = { policy, divisor: 50 };
      close(await itemOf(() => ({ loss: nextToken(options).loss(model, batch(), context) })), expected / 50);
      assert.ok(Math.abs(expected / 50 / (await whole({ divisor: 50 })) - 1) > 0.05, 'the options do something');
    });
  }
});
