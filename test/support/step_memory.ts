// Steps whose memory is compared with the plan: what it depends on, as factors of which tests take combinations.
import assert from 'node:assert/strict';
import {
  AdamW,
  addLora,
  Decoder,
  type Device,
  type DeviceOptions,
  decoderConfig,
  type HostBatch,
  type HuggingFaceConfig,
  type LoraOptions,
  type MemoryStatistics,
  type StateBits,
  type StepPolicy,
  type StepShape,
  simulateStep,
  TrainStep,
} from '../../lib/index.ts';
import { LORA_MODULES } from '../../lib/models/adapter.ts';
import type { Quantization } from '../../lib/models/decoder_config.ts';
import { openTestDevice } from './devices.ts';
import type { Choice } from './pairwise.ts';
import { integers } from './random.ts';
import { tinyLlama } from './runs.ts';

const llama: HuggingFaceConfig = { ...tinyLlama, num_hidden_layers: 5, intermediate_size: 136 }; // weights of 4,096 elements and more

/** Each a value's name and the value. */
const models: Record<string, HuggingFaceConfig> = {
  llama,
  gemma2: { ...llama, model_type: 'gemma2', sliding_window: 33, query_pre_attn_scalar: 8 },
  'qwen3, tied': { ...llama, model_type: 'qwen3', head_dim: 16, tie_word_embeddings: true },
};
const dtypes: Record<string, Pick<StepShape, 'dtype' | 'gradientDtype' | 'masterWeights'>> = {
  float32: { dtype: 'float32' },
  bfloat16: { dtype: 'bfloat16' },
  'bfloat16 without masters': { dtype: 'bfloat16', masterWeights: false },
  'bfloat16, gradients too': { dtype: 'bfloat16', masterWeights: false, gradientDtype: 'bfloat16' },
};
const lora: LoraOptions = { rank: 4, modules: LORA_MODULES, dropout: 0.1 };
const adapters: Record<string, { lora: LoraOptions | null; quantization?: Quantization }> = {
  none: { lora: null },
  'rank 4': { lora },
  'rank 4, weights in 4 bits': { lora, quantization: 'nf4' },
};
/** More than the inputs of all layers take. */
const HOST_MEMORY = 2 ** 22;

/** What a step's memory depends on. Another factor is one line here, and one where `memoryOf` uses it. */
export const factors = {
  model: Object.keys(models),
  rung: [
    { recompute: 'none', mlpSave: 'gateUp' },
    { recompute: 'none' },
    { recompute: 'attention' },
    { recompute: 'attentionSegments', slots: 4 },
    { recompute: 'attentionSegments' },
    { recompute: 'layer' },
    { recompute: 'segments', slots: 5 },
    { recompute: 'segments', slots: 3 },
    { recompute: 'layer', attentionHeadGroups: 2 },
    { recompute: 'segments', attentionHeadGroups: 2 },
    { recompute: 'attention', offloadedInputs: 5 },
    { recompute: 'layer', offloadedInputs: 2 },
    { recompute: 'segments', slots: 4, attentionHeadGroups: 2, offloadedInputs: 3 },
    { recompute: 'segments', keepAttention: true },
    { recompute: 'segments', keepAttention: true, attentionHeadGroups: 2 },
  ] satisfies Partial<StepPolicy>[],
  dtype: Object.keys(dtypes),
  stateBits: [32, 16, 8] satisfies StateBits[],
  update: ['after the backward', 'after two micro-batches', 'in the backward'],
  adapters: Object.keys(adapters),
  batch: [
    { B: 1, T: 45, isPacked: false },
    { B: 2, T: 53, isPacked: true },
    { B: 3, T: 21, isPacked: false },
  ],
} as const;
export type StepChoice = Choice<typeof factors>;

/** Whether a step accepts it: bf16 gradients are for one micro-batch. */
export function isAllowed({ dtype, update }: StepChoice): boolean {
  return !(dtypes[dtype]!.gradientDtype === 'bfloat16' && update === 'after two micro-batches');
}

/** A device of its own, which allows the host memory that a step may take. */
export const deviceOfStep = (options: DeviceOptions = {}): Device =>
  openTestDevice({ hostMemoryLimit: HOST_MEMORY, ...options });

export const nameOf = (choice: StepChoice) =>
  Object.entries(choice)
    .map(([name, value]) => `${name} ${typeof value === 'object' ? JSON.stringify(value) : value}`)
    .join(', ');

/** A batch of B sequences of T, where `isPacked` each of two documents. */
function batchOf({ B, T, isPacked }: StepChoice['batch']): HostBatch {
  const ids = integers(B * T, 256, 1);
  const starts = Int32Array.from({ length: B * T }, (_, n) => (n % T < 5 ? n - (n % T) : n - (n % T) + 5));
  return { inputs: ids, targets: ids, T, ...(isPacked && { documentStart: starts }) };
}

/**
 * Runs one step of a new model on the device, whose memory must be free, and fails unless it takes what `meta` says of device and host, to
 * the byte.
 * @param batches of further steps of the same model, each of which must take that too
 * @returns what `meta` says of the last step
 */
export async function requirePlannedMemory(
  device: Device,
  choice: StepChoice,
  batches: readonly StepChoice['batch'][] = [choice.batch],
): Promise<MemoryStatistics> {
  const { lora, quantization } = adapters[choice.adapters]!;
  const config = decoderConfig(models[choice.model]!, { quantization });
  const { dtype, gradientDtype, masterWeights } = dtypes[choice.dtype]!;
  const { stateBits } = choice;
  const policy: StepPolicy = { mlpChunkSize: 16, lossChunkSize: 25, mlpSave: 'input', ...choice.rung };
  const inBackward = choice.update === 'in the backward';
  const accumulationSteps = choice.update === 'after two micro-batches' ? 2 : 1;
  using model = new Decoder(config, { device, dtype, gradientDtype }).initialize(1);
  if (lora) addLora(model, lora);
  using optimizer = new AdamW(model.trainableParameters(), { stateBits, masterWeights });
  using trainStep = new TrainStep(model, optimizer, { policy, inBackward });
  const ofModel = { config, dtype, gradientDtype, lora, like: device.target };
  const ofStep = { ...ofModel, policy, stateBits, masterWeights, inBackward, accumulationSteps };
  let planned: MemoryStatistics | null = null;
  let hostBytes = 0;
  for (const batch of batches) {
    device.arena.resetPeak();
    const microBatches = Array.from({ length: accumulationSteps }, () => batchOf(batch));
    const { loss } = await trainStep.run(microBatches, { learningRate: 1e-3 });
    assert.ok(Number.isFinite(await loss));
    await device.synchronize();
    planned = simulateStep({ ...ofStep, ...batch });
    const { numAllocations, ...measured } = device.memory();
    const { numAllocations: _, ...expected } = planned;
    hostBytes = Math.max(hostBytes, expected.hostBytes); // of the largest step so far
    assert.deepEqual(measured, { ...expected, hostBytes }, JSON.stringify(batch));
    assert.equal(hostBytes > 0, (policy.offloadedInputs ?? 0) > 0);
  }
  return planned!;
}
