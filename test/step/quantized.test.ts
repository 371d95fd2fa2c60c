// A step with frozen weights in 4 bits takes what `meta` says, to the byte.
import assert from 'node:assert/strict';
import {
  AdamW,
  addLora,
  Decoder,
  type Dtype,
  decoderConfig,
  planStep,
  type StepPolicy,
  simulateStep,
  TrainStep,
} from '../../lib/index.ts';
import { LORA_MODULES } from '../../lib/models/adapter.ts';
import { openTestDevice } from '../support/devices.ts';
import { integers } from '../support/random.ts';
import { tinyLlama } from '../support/runs.ts';

const rungs: Partial<StepPolicy>[] = [
  { recompute: 'none', mlpSave: 'gateUp' },
  { recompute: 'none' },
  { recompute: 'attention' },
  { recompute: 'attentionSegments' },
  { recompute: 'layer' },
  { recompute: 'segments', slots: 3 },
];
const models = [
  tinyLlama,
  { ...tinyLlama, model_type: 'gemma2', sliding_window: 33, query_pre_attn_scalar: 8 },
  { ...tinyLlama, model_type: 'qwen2', tie_word_embeddings: true },
];

describe('a step with weights in 4 bits takes what meta says, to the byte', () => {
  let i = 0;
  for (const rung of rungs) {
    for (const dtype of ['float32', 'bfloat16'] as Dtype[]) {
      const T = [77, 130, 41][i % 3]!;
      const source = { ...models[(i + Math.floor(i / 3)) % 3]!, num_hidden_layers: 5 };
      const inBackward = i % 4 === 1;
      const stateBits = ([32, 8] as const)[Math.floor(i / 2) % 2]!;
      const modules = i % 5 === 2 ? LORA_MODULES : undefined;
      i++;
      const what = `${JSON.stringify(rung)}, ${dtype}, ${source.model_type}, ${stateBits} bits${inBackward ? ', in the backward' : ''}`;
      it(`${what}, T ${T}`, async () => {
        const config = decoderConfig(source, { quantization: 'nf4' });
        const lora = { rank: 4, dropout: i % 2 ? 0.1 : 0, modules };
        const policy: StepPolicy = {
          mlpChunkSize: 32,
          lossChunkSize: 50,
          mlpSave: 'input',
          recompute: 'none',
          ...rung,
        };
        using device = openTestDevice();
        using model = new Decoder(config, { device, dtype }).initialize(1);
        addLora(model, lora);
        using optimizer = new AdamW(model.trainableParameters(), { stateBits });
        using trainStep = new TrainStep(model, optimizer, { policy, inBackward });
        const ids = integers(T, 256, 1);
        device.arena.resetPeak();
        await trainStep.run([{ inputs: ids, targets: ids, T }], { learningRate: 1e-3 });
        await device.synchronize();
        const { peakBytes, reservedBytes, peak } = device.memory();
        const like = device.target;
        const planned = simulateStep({ config, B: 1, T, dtype, lora, stateBits, inBackward, policy, like });
        assert.deepEqual(
          { peakBytes, reservedBytes, peak },
          { peakBytes: planned.peakBytes, reservedBytes: planned.reservedBytes, peak: planned.peak },
        );
      });
    }
  }

  it('plans less than with weights in bf16, by what these take', () => {
    const source = { ...tinyLlama, hidden_size: 256, intermediate_size: 704, num_hidden_layers: 8 };
    const step = { B: 1, T: 512, dtype: 'bfloat16', lora: { rank: 2 }, memoryLimit: 2 ** 40 } as const;
    const like = { kind: 'cpu', threads: 2 } as const;
    const fixed = { mlpChunkSize: 128, lossChunkSize: 128, mlpSave: 'input', recompute: 'layer' } as const;
    const bytes = [null, 'nf4' as const].map((quantization) => {
      const { memory } = planStep(decoderConfig(source, { quantization }), { ...step, like, fixed });
      return memory.peak.parameter;
    });
    const projections = 8 * (2 * 256 * 256 + 2 * 256 * 128 + 3 * 256 * 704);
    const saved = bytes[0]! - bytes[1]!;
    // 16 - 4.127 bits each; tensors begin at multiples of 64 bytes or more
    assert.ok(Math.abs(saved / ((projections * (16 - 4.127)) / 8) - 1) < 0.01, `${saved}`);
  });
});
