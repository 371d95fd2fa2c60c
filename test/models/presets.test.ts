// Presets are configs that any folder may have, and of the sizes that their makers publish.
import assert from 'node:assert/strict';
import { Decoder, decoderConfig, openDevice } from '../../lib/index.ts';
import { presetConfig, presets } from '../../lib/models/presets.ts';

/** Parameters as the published files of weights have them, tied heads once. */
const published: Record<string, number> = {
  'Llama-3-8B': 8_030_261_248,
  'Llama-2-7B': 6_738_415_616,
  'Mistral-7B': 7_241_732_096,
  'Qwen2-7B': 7_615_616_512,
  'Gemma-2-9B': 9_241_705_984,
  'Llama-3.1-8B': 8_030_261_248,
  'Llama-3.2-1B': 1_235_814_400,
  'Llama-3.2-3B': 3_212_749_824,
  'Qwen2.5-7B': 7_615_616_512,
  'Qwen3-0.6B': 596_049_920,
  'Qwen3-1.7B': 1_720_574_976,
  'Qwen3-4B': 4_022_468_096,
  'Qwen3-8B': 8_190_735_360,
  'Qwen3-14B': 14_768_307_200,
  'Qwen3-32B': 32_762_123_264,
  'Gemma-2-2B': 2_614_341_888,
  'SmolLM2-135M': 134_515_008,
  'SmolLM2-360M': 361_821_120,
  'SmolLM2-1.7B': 1_711_376_384,
  'Mistral-Nemo': 12_247_782_400,
};

describe('presets', () => {
  for (const [name, source] of Object.entries(presets)) {
    it(`${name} has as many parameters as are published`, () => {
      using device = openDevice('meta');
      using model = new Decoder(decoderConfig(source), { device, dtype: 'bfloat16' });
      assert.equal(model.numParameters(), published[name]);
    });
  }

  it('are found in any case, and another name lists them', () => {
    assert.equal(presetConfig('llama-3-8b'), presets['Llama-3-8B']);
    assert.throws(() => presetConfig('Llama-4'), /"Llama-4" is none of Llama-3-8B, Llama-2-7B, .*Mistral-Nemo$/);
  });
});
