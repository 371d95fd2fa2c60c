// The public API. What is not exported here may change tomorrow.

export { Parameter, type ParameterOptions } from './autograd/parameter.ts';
export { recompute } from './autograd/region.ts';
export { noGrad, Tape, valueAndGrad } from './autograd/tape.ts';
export type { OnGradient } from './autograd/uses.ts';
export { type Exported, type ExportOptions, type ExportType, exportGguf } from './export/export_gguf.ts';
export {
  type GeneratedToken,
  type GenerateOptions,
  generate,
  generateText,
  type Prompt,
} from './generate/generate.ts';
export { loadAdapter, saveAdapter } from './io/adapters.ts';
export { type HubOptions, resolveModelFolder } from './io/hub.ts';
export { type SaveOptions, saveModel } from './io/save_model.ts';
export { type LoadOptions, loadModel } from './io/weights.ts';
export type { AdapterLayout, Lora, LoraLayout, LoraModule } from './models/adapter.ts';
export type { Batch, HostBatch } from './models/batch.ts';
export { KeyValueCache } from './models/cache.ts';
export { decoderConfig } from './models/config.ts';
export { Decoder, type ForwardOptions } from './models/decoder.ts';
export type {
  AttentionSpec,
  DecoderConfig,
  EmbeddingSpec,
  HeadSpec,
  LayerNorms,
  LayerSpec,
  MlpSpec,
  NormSpec,
} from './models/decoder_config.ts';
export type { HuggingFaceConfig } from './models/fields.ts';
export { addLora, type LoraOptions } from './models/lora.ts';
export { mergeLora } from './models/merge_lora.ts';
export { Module } from './models/module.ts';
export type { ModelOrigin } from './models/origin.ts';
export type { StepPolicy } from './models/policy.ts';
export type { RopeConfig } from './models/rope_config.ts';
export { type NextTokenLossOptions, nextToken, nextTokenLoss } from './objectives/next_token.ts';
export type { LossOptions, Objective } from './objectives/objective.ts';
export { type AttentionOptions, attention } from './ops/attention.ts';
export { type ChunkedCrossEntropyOptions, chunkedCrossEntropy } from './ops/chunked_cross_entropy.ts';
export { type ChunkedMlpOptions, chunkedMlp } from './ops/chunked_mlp.ts';
export { crossEntropy } from './ops/cross_entropy.ts';
export { type DropoutMask, dropout } from './ops/dropout.ts';
export { add, cast, scale } from './ops/elementwise.ts';
export { embedding } from './ops/embedding.ts';
export { type Activation, geglu, swiglu } from './ops/glu.ts';
export { linear } from './ops/linear.ts';
export type { CrossEntropyOptions, CrossEntropyResult, PerTokenOutput } from './ops/loss_options.ts';
export type { LowRankAdapter } from './ops/low_rank.ts';
export { miniSequence } from './ops/mini_sequence.ts';
export { dequantizeNf4, type Nf4Tensors, quantizeNf4 } from './ops/nf4.ts';
export { QuantizedWeight, quantizeWeight, type Weight } from './ops/quantized_weight.ts';
export { rmsNorm } from './ops/rms_norm.ts';
export { type Rope, rope } from './ops/rope.ts';
export { softcap } from './ops/softcap.ts';
export { reshape, rows } from './ops/views.ts';
export { AdamW, type AdamWOptions } from './optim/adamw.ts';
export type { StateBits } from './optim/adamw_state.ts';
export { type ClippedNorm, type Clipping, clipGradNorm } from './optim/clip.ts';
export type { Optimizer, UpdateOptions } from './optim/optimizer.ts';
export { type RankPlace, rankPlace } from './ranks/place.ts';
export { ProcessGroup } from './ranks/process_group.ts';
export { Shards } from './ranks/shards.ts';
export { RankError, RankStore, type StoreOptions } from './ranks/store.ts';
export {
  type Device,
  type DeviceName,
  type DeviceOptions,
  type DeviceTarget,
  getDevice,
  memory,
  openDevice,
} from './runtime/device.ts';
export { type Dtype, type GradientDtype, type TensorData, toBfloat16, toFloat32 } from './runtime/dtype.ts';
export { OutOfMemoryError } from './runtime/memory/errors.ts';
export type {
  BlockContent,
  Category,
  MemoryBreakdown,
  MemoryStatistics,
  TimelineEvent,
} from './runtime/memory/statistics.ts';
export { NativeLoadError } from './runtime/native.ts';
export { tidy } from './runtime/scope.ts';
export { empty, Tensor, tensor, zeros } from './runtime/tensor.ts';
export { HalfStepError } from './step/in_backward.ts';
export { type LongestOptions, type LongestStep, longestSteps, type Rung } from './step/longest.ts';
export { type CountedStep, type StepOperations, stepOperations } from './step/operations.ts';
export { type Plan, type PlanOptions, plainPolicy, planStep } from './step/plan.ts';
export { type SimulatedStep, type StepShape, simulateStep } from './step/simulate.ts';
export { type StepOptions, type StepResult, TrainStep, type TrainStepOptions } from './step/train_step.ts';
export type { Conversation, Message } from './text/records/record.ts';
export { loadTokenizer, type Tokenizer, type TokenizerOptions } from './text/tokenizer.ts';
export { parseConfig, type RunConfig, type RunConfigInput } from './train/config.ts';
export { readRunConfig } from './train/config_file.ts';
export {
  NonFiniteError,
  type RunEvent,
  type RunStart,
  type RunWarning,
  type TrainOptions,
  type TrainResult,
  type WarningCode,
} from './train/events.ts';
export type { StepMetrics } from './train/metrics.ts';
export { CheckpointError } from './train/run_state.ts';
export { train } from './train/train.ts';
