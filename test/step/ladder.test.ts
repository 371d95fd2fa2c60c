// What a step keeps, rung by rung: its memory is what `meta` says, to the byte.
import assert from 'node:assert/strict';
import {
  AdamW,
  addLora,
  Decoder,
  type Dtype,
  decoderConfig,
  type HostBatch,
  type HuggingFaceConfig,
  type LoraOptions,
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
  { recompute: 'attention' },
  { recompute: 'attentionSegments', slots: 4 },
  { recompute: 'attentionSegments' },
  { recompute: 'layer' },
  { recompute: 'segments', slots: 5 },
  { recompute: 'segments', slots: 3 },
];
const models: HuggingFaceConfig[] = [
  tinyLlama,
  { ...tinyLlama, model_type: 'gemma2', sliding_window: 33, query_pre_attn_scalar: 8 },
  { ...tinyLlama, model_type: 'qwen3', head_dim: 16, tie_word_embeddings: true },
];
const adapters: (LoraOptions | null)[] = [null, { rank: 4, modules: LORA_MODULES, dropout: 0.1 }];

/** A batch of B sequences of T, where `isPacked` each of two documents. */
function batchOf(B: number, T: number, isPacked: boolean): HostBatch {
  const ids = integers(B * T, 256, 1);
  const starts = Int32Array.from({ length: B * T }, (_, n) => (n % T < 5 ? n - (n % T) : n - (n % T) + 5));
  return { inputs: ids, targets: ids, T, ...(isPacked && { documentStart: starts }) };
}

describe('a step takes what meta says, to the byte', () => {
  let i = 0;
  for (const rung of rungs) {
    for (const dtype of ['float32', 'bfloat16'] as Dtype[]) {
      for (const lora of adapters) {
        // each pair of rung, dtype and adapters, with lengths, models and documents in turn
        const [B, T] = (
          [
            [1, 77],
            [2, 130],
            [3, 41],
          ] as const
        )[i % 3]!;
        const source = models[(i + Math.floor(i / 3)) % 3]!;
        const isPacked = i % 4 === 1;
        i++;
        const name = `${JSON.stringify(rung)}, ${dtype}, ${lora ? 'adapters' : 'all parameters'}, ${source.model_type}`;
        it(`${name}, B ${B}, T ${T}${isPacked ? ', packed' : ''}`, async () => {
          const config = decoderConfig({ ...source, num_hidden_layers: 5 });
          const policy: StepPolicy = {
            mlpChunkSize: 32,
            lossChunkSize: 50,
            mlpSave: 'input',
            recompute: 'none',
            ...rung,
          };
          using device = openTestDevice();
          using model = new Decoder(config, { device, dtype }).initialize(1);
          if (lora) addLora(model, lora);
          using optimizer = new AdamW(model.trainableParameters());
          using trainStep = new TrainStep(model, optimizer, { policy });
          device.arena.resetPeak();
          await trainStep.run([batchOf(B, T, isPacked)], { learningRate: 1e-3 });
          await device.synchronize();
          const { peakBytes, reservedBytes, peak } = device.memory();
          const planned = simulateStep({ config, B, T, isPacked, dtype, lora, policy, like: device.target });
          assert.deepEqual(
            { peakBytes, reservedBytes, peak },
            { peakBytes: planned.peakBytes, reservedBytes: planned.reservedBytes, peak: planned.peak },
          );
        });
      }
    }
  }
});
