// A training run: batch, loss, backward, clip, update, log.
import { mkdir, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { stringify as toYaml } from 'yaml';
import { readTokens, Sequences, type TokenBatch } from '../data/tokens.ts';
import { type DeviceName, openDevice } from '../device.ts';
import { resolveModelFolder } from '../io/hub.ts';
import { loadTokenizer, type Tokenizer } from '../io/tokenizer.ts';
import { loadModel, saveModel } from '../io/weights.ts';
import { decoderConfig } from '../models/config.ts';
import { type Batch, Decoder, type StepPolicy } from '../models/decoder.ts';
import { AdamW } from '../optim/adamw.ts';
import { learningRateAt } from '../optim/schedule.ts';
import { planStep } from '../planning/plan.ts';
import { tensor } from '../tensor.ts';
import type { RunConfig } from './config.ts';
import { MetricsFile, type StepMetrics } from './metrics.ts';
import { disposeResult, type StepResult, stepResult, trainStep } from './step.ts';

/** What `onStart` is told. */
export interface RunStart {
  model: Decoder;
  policy: StepPolicy;
  numSteps: number;
  numTokens: number;
  numWindows: number;
}

export interface TrainOptions {
  /** Stops between two micro-batches; the model is saved. */
  signal?: AbortSignal;
  /** Once, before the first step. */
  onStart?: (start: RunStart) => void;
  /** After each step, one step late. */
  onStep?: (metrics: StepMetrics, numSteps: number) => void;
  /** A step that was skipped because its loss or gradients were not finite. */
  onSkip?: (message: string) => void;
}

export interface TrainResult {
  metrics: StepMetrics[];
  /** False where `signal` stopped it. */
  finished: boolean;
  outDir: string;
  policy: StepPolicy;
  /** Most bytes that the arena reserved in a step. */
  peakBytes: number;
}

/** Thrown when a loss or gradient is NaN or infinite. That step has changed no parameter. */
export class NonFiniteError extends Error {
  override readonly name = 'NonFiniteError';
}

/** Trains as the configuration says. The run's folder gets config.yaml, metrics.jsonl and, at the end, the model in HuggingFace's layout. */
export async function train(config: RunConfig, options: TrainOptions = {}): Promise<TrainResult> {
  const { signal, onStart, onStep, onSkip } = options;
  const { sequenceLength: T, batchSize: B, accumulationSteps, outDir } = config;
  using device = openDevice(config.device as DeviceName, { threads: config.threads, memoryLimit: config.memoryLimit });
  const modelFolder = 'path' in config.model ? await resolveModelFolder(config.model.path) : null;
  const tokenizer = await loadTokenizer(
    config.tokenizer ?? (modelFolder ? join(modelFolder, 'tokenizer.json') : 'bytes'),
  );
  using model = await makeModel(config, device, tokenizer, modelFolder);
  const tokens = await readTokens(config.data.files, tokenizer);
  const sequences = new Sequences(tokens, T, model.config.vocabSize);
  const stepsPerEpoch = Math.ceil(sequences.length / (B * accumulationSteps));
  const numSteps = config.maxSteps ?? Math.ceil((config.epochs ?? 1) * stepsPerEpoch);
  const policy = choosePolicy(config, model);
  using optimizer = new AdamW(model.trainableParameters(), config.optimizer);

  await mkdir(outDir, { recursive: true });
  await writeFile(join(outDir, 'config.yaml'), toYaml(config));
  const file = await MetricsFile.create(join(outDir, 'metrics.jsonl'));
  onStart?.({ model, policy, numSteps, numTokens: tokens.length, numWindows: sequences.length });

  const metrics: StepMetrics[] = [];
  const started = performance.now();
  let lastDone = started;
  const log = async ({ step, values, result, learningRate, numTargets, peakBytes }: PendingStep): Promise<void> => {
    const [loss, gradNorm] = await values;
    if (!Number.isFinite(loss) || !Number.isFinite(gradNorm)) {
      const problem = await describeNonFinite(step, result, loss, model);
      if (config.nonFinite === 'stop') throw new NonFiniteError(problem);
      onSkip?.(problem);
    }
    const now = performance.now();
    const line: StepMetrics = {
      step,
      loss,
      gradNorm,
      learningRate,
      tokens: numTargets,
      tokensPerSecond: numTargets / ((now - lastDone) / 1000),
      peakBytes,
      seconds: (now - started) / 1000,
    };
    lastDone = now;
    metrics.push(line);
    await file.append(line);
    onStep?.(line, numSteps);
  };

  const results = [stepResult(model), stepResult(model)];
  let pending: PendingStep | null = null;
  try {
    for (let step = 1; step <= numSteps && !signal?.aborted; step++) {
      const batches = batchesOfStep(sequences, step - 1, config);
      const numTargets = batches.reduce((sum, batch) => sum + batch.numTargets, 0);
      const learningRate = learningRateAt(step - 1, {
        ...config.schedule,
        learningRate: config.optimizer.learningRate,
        numSteps,
      });
      const result = results[step % 2]!;
      device.arena.resetPeak();
      const microBatches = batches.map((batch) => () => toDevice(batch, device));
      const stepOptions = { policy, learningRate, maxGradNorm: config.maxGradNorm, numTargets };
      const done = await trainStep(model, optimizer, microBatches, stepOptions, result, signal);
      // Enqueued now, read when the next step has been enqueued too: the device never waits for the host.
      const values = Promise.all([result.loss.item(), result.norm.item()]);
      values.catch(() => {}); // told by log()
      if (pending) await log(pending);
      pending = done
        ? { step, values, result, learningRate, numTargets, peakBytes: device.memory().reservedBytes }
        : null;
    }
    if (pending) await log(pending);
  } finally {
    await file.close();
    for (const result of results) disposeResult(result);
  }
  const tokenizerFrom = tokenizer.path ? dirname(tokenizer.path) : null;
  await saveModel(model, outDir, { tokenizerFrom });
  return {
    metrics,
    finished: metrics.length === numSteps,
    outDir,
    policy,
    peakBytes: metrics.reduce((peak, { peakBytes }) => Math.max(peak, peakBytes), 0),
  };
}

interface PendingStep {
  step: number;
  /** Loss and norm. */
  values: Promise<[number, number]>;
  result: StepResult;
  learningRate: number;
  numTargets: number;
  peakBytes: number;
}

async function makeModel(
  config: RunConfig,
  device: ReturnType<typeof openDevice>,
  tokenizer: Tokenizer,
  folder: string | null,
): Promise<Decoder> {
  const { dtype } = config;
  const model =
    'config' in config.model
      ? new Decoder(decoderConfig({ vocab_size: tokenizer.vocabSize, ...config.model.config }), {
          device,
          dtype,
        }).initialize(config.seed)
      : await loadModel(folder!, { device, dtype });
  const V = model.config.vocabSize;
  if (tokenizer.vocabSize > V) {
    model.dispose();
    throw new RangeError(`train: the tokenizer has ${tokenizer.vocabSize} ids, the model's vocabulary ${V}`);
  }
  return model;
}

/** What the configuration fixes, and for the rest the fastest that fits the device. */
function choosePolicy(config: RunConfig, model: Decoder): StepPolicy {
  const { chunkSizes, mlpSave, recompute } = config;
  const fixed: Partial<StepPolicy> = {};
  if (chunkSizes.mlp !== 'auto') fixed.mlpChunkSize = chunkSizes.mlp;
  if (chunkSizes.loss !== 'auto') fixed.lossChunkSize = chunkSizes.loss;
  if (mlpSave !== 'auto') fixed.mlpSave = mlpSave;
  if (recompute !== 'auto') fixed.recompute = recompute;
  const { device, dtype } = model;
  return planStep(model.config, {
    B: config.batchSize,
    T: config.sequenceLength,
    dtype,
    accumulationSteps: config.accumulationSteps,
    like: device.target,
    memoryLimit: device.memoryLimit,
    fixed,
  }).policy;
}

/** The micro-batches of a step, counted from 0. An epoch's last step may have fewer sequences. */
function batchesOfStep(
  sequences: Sequences,
  step: number,
  { batchSize, accumulationSteps, seed }: RunConfig,
): TokenBatch[] {
  const perStep = batchSize * accumulationSteps;
  const stepsPerEpoch = Math.ceil(sequences.length / perStep);
  const order = sequences.order(seed, Math.floor(step / stepsPerEpoch));
  const begin = (step % stepsPerEpoch) * perStep;
  const windows = order.subarray(begin, begin + perStep);
  return Array.from({ length: Math.ceil(windows.length / batchSize) }, (_, i) =>
    sequences.batch([...windows.subarray(i * batchSize, (i + 1) * batchSize)]),
  );
}

function toDevice({ inputs, targets, T }: TokenBatch, device: Decoder['device']): Batch {
  return { inputs: tensor(inputs, { device }), targets: tensor(targets, { device }), T };
}

/** Names the step and the first tensor whose gradient is not finite. */
async function describeNonFinite(step: number, result: StepResult, loss: number, model: Decoder): Promise<string> {
  if (!Number.isFinite(loss)) return `step ${step}: the loss is ${loss}; no parameter was changed by it`;
  const squares = await result.squares.toFloat32();
  const index = squares.findIndex((value) => !Number.isFinite(value));
  const name = model.trainableParameters()[index]?.name ?? 'all parameters together';
  return `step ${step}: the gradient of ${name} is not finite; no parameter was changed by it`;
}
