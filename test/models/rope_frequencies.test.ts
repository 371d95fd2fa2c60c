// Frequencies of rotary positions, from the fields of config.json.
import assert from 'node:assert/strict';
import { decoderConfig } from '../../lib/index.ts';
import { inverseFrequencies } from '../../lib/models/rope_frequencies.ts';
import { relativeError } from '../support/compare.ts';
import { tinyLlama } from '../support/runs.ts';

describe('inverse frequencies', () => {
  const D = 16;
  const plain = (theta: number) => Array.from({ length: D / 2 }, (_, d) => 1 / theta ** ((2 * d) / D));

  it('grow their base with the length (dynamic)', () => {
    const rope = { type: 'dynamic', theta: 100, factor: 2, maxPositions: 32 } as const;
    assert.ok(relativeError(inverseFrequencies(rope, D, 32), plain(100)) < 1e-15);
    // 100 * (2 * 96 / 32 - 1) ** (16 / 14)
    assert.ok(relativeError(inverseFrequencies(rope, D, 96), plain(629.2506)) < 1e-6);
  });

  it('are those of the whole head for some pairs, and 0 for the others (proportional)', () => {
    const rope = { type: 'proportional', theta: 100, factor: 2, rotated: 3 } as const;
    const expected = plain(100).map((frequency, d) => (d < 3 ? frequency / 2 : 0));
    assert.ok(relativeError(inverseFrequencies(rope, D, 9), expected) < 1e-15);
  });

  it('have a larger base up to that length (HunYuan)', () => {
    const rope = { type: 'dynamic', theta: 100, factor: 2, maxPositions: 32, alpha: 5 } as const;
    assert.ok(relativeError(inverseFrequencies(rope, D, 32), plain(100 * 5 ** (16 / 14))) < 1e-14);
    assert.ok(relativeError(inverseFrequencies(rope, D, 33), plain(100 * (66 / 32 - 1) ** (16 / 14))) < 1e-14);
  });

  it('are kept, blended and slowed (yarn)', () => {
    const config = decoderConfig({
      ...tinyLlama,
      max_position_embeddings: 256,
      rope_parameters: {
        rope_type: 'yarn',
        rope_theta: 10000,
        factor: 4,
        original_max_position_embeddings: 64,
        beta_fast: 4,
        beta_slow: 1,
      },
    });
    const { rope } = config.layers[0]!.attention;
    assert.ok(rope?.type === 'yarn' && Math.abs(rope.attentionFactor - 1.1386294361119891) < 1e-15);
    // pairs that turn 4 times and once in 64 positions: 0.81 and 2.02, so that the ramp goes from 0 to 3
    const slowed = [0, 1 / 3, 2 / 3, 1, 1, 1, 1, 1];
    const expected = plain(10000).map((frequency, d) => frequency * (1 - slowed[d]!) + (frequency / 4) * slowed[d]!);
    assert.ok(relativeError(inverseFrequencies(rope, D, 64), expected) < 1e-14);
  });

  it('of yarn refuse what is no number, in fields that may be absent too', () => {
    const yarn = { rope_type: 'yarn', rope_theta: 10000, factor: 4, original_max_position_embeddings: 64 };
    const read = (rope: object, top: object = {}) =>
      decoderConfig({ ...tinyLlama, max_position_embeddings: 256, ...top, rope_parameters: { ...yarn, ...rope } });
    assert.throws(() => read({ mscale: '1', mscale_all_dim: 1 }), /mscale must be a number, got "1"/);
    assert.throws(() => read({ mscale: 1, mscale_all_dim: [1] }), /mscale_all_dim must be a number, got \[1\]/);
    assert.throws(() => read({}, { max_position_embeddings: '256' }), /max_position_embeddings must be a number/);
    assert.throws(() => read({ factor: null }, { max_position_embeddings: null }), /factor must be a number/);
    const { rope } = read({ factor: null }).layers[0]!.attention;
    assert.ok(rope?.type === 'yarn' && rope.factor === 4);
  });
});
