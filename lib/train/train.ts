// Training by a configuration: data, model and run are put together here.
import { join } from 'node:path';
import { formatNote } from '../data/notes.ts';
import { loadAdapter } from '../io/adapters.ts';
import { resolveModelFolder } from '../io/hub.ts';
import { makeFolder } from '../io/make_folder.ts';
import { loadModel, readConfig } from '../io/weights.ts';
import { removeLeftovers } from '../io/whole_file.ts';
import { decoderConfig } from '../models/config.ts';
import { Decoder } from '../models/decoder.ts';
import type { DecoderConfig } from '../models/decoder_config.ts';
import { addLora } from '../models/lora.ts';
import { requireSequenceModel } from '../models/sequence_part.ts';
import { ProcessGroup } from '../ranks/process_group.ts';
import { type Device, type DeviceName, openDevice } from '../runtime/device.ts';
import { loadTokenizer, type Tokenizer } from '../text/tokenizer.ts';
import { Checkpoints } from './checkpoint.ts';
import type { RunConfig } from './config.ts';
import {
  hashOf,
  machineOf,
  requireSameConfig,
  requireSameMachine,
  requireSameSources,
  tokenizerHashes,
  weightsHash,
} from './continuation.ts';
import { RunEvents } from './event_stream.ts';
import type { TrainOptions, TrainResult } from './events.ts';
import { planRun } from './policy.ts';
import { Run } from './run.ts';
import { openRunData } from './run_data.ts';
import { RunLock } from './run_lock.ts';
import { deviceOfRank, RunRanks } from './run_ranks.ts';
import type { RunSources, RunState } from './run_state.ts';
import {
  requireOwnFolder,
  requireOwnKind,
  requirePlaces,
  requirePrompts,
  requireRope,
  requireRows,
  requireUnfinished,
} from './start_checks.ts';

/**
 * Trains as the configuration says. The run's folder gets config.yaml, metrics.jsonl, tokenised data, checkpoints and, at the end, the model
 * in HuggingFace's layout. A run that was stopped anywhere and is continued has the losses of an uninterrupted one, bit for bit on the
 * CPU. One run at a time has a folder.
 */
export async function train(config: RunConfig, options: TrainOptions = {}): Promise<TrainResult> {
  return await RunRanks.meet(options.ranks ?? null, async (ranks) => {
    const { outDir } = config;
    const alike = [{ ...config, outDir: null, threads: null }, options.resume ?? false];
    await ranks.requireSame('configuration', hashOf(alike));
    ranks.requireSequence(config);
    await requireOwnFolder(config);
    await makeFolder(outDir, 'outDir');
    const lock = ranks.isFirst ? await RunLock.take(outDir) : null;
    const events = new RunEvents(ranks.isFirst ? options : {});
    let result: TrainResult;
    try {
      result = await trainLocked(config, options, events, ranks);
    } finally {
      await lock?.release();
    }
    await events.emit({ type: 'end', result });
    return result;
  });
}

async function trainLocked(
  config: RunConfig,
  options: TrainOptions,
  events: RunEvents,
  ranks: RunRanks,
): Promise<TrainResult> {
  const { outDir } = config;
  const { resume = false, allowOtherMachine = false } = options;
  const signal = ranks.stopSignal(options.signal);
  const checkpoints = new Checkpoints(outDir, config.checkpoint.keepLast, (warning) => events.warn(warning));
  await ranks.inTurn(async () => {
    if (!ranks.isFirst) return;
    await requirePlaces(outDir);
    await requireOwnKind(config);
    await removeLeftovers(outDir, { all: true });
    await checkpoints.clean();
  });
  if (!resume && (await checkpoints.steps()).length > 0) {
    throw new Error(`${outDir}: holds checkpoints of an earlier run; continue it (--resume), or choose another outDir`);
  }
  const state = resume ? await checkpoints.lastState() : null;
  if (resume && !state) await requireUnfinished(outDir);
  if (state) requireSameConfig(state, config, { outDir, allowOtherMachine, numRanks: ranks.size });
  using device = openRunDevice(config, allowOtherMachine ? null : state, ranks);
  await ranks.requireOwnGpu(device);
  using group = ranks.store && (await ProcessGroup.join(ranks.store, device));
  const machine = machineOf(device, ranks.size);
  const change = state && requireSameMachine(state, machine, { outDir, allowOtherMachine, numRanks: ranks.size });
  if (change) events.warn(change);

  const folder = 'path' in config.model ? await resolveModelFolder(config.model.path) : null;
  const source = config.tokenizer ?? (folder ? join(folder, 'tokenizer.json') : 'bytes');
  const tokenizer = await loadTokenizer(source, config.data);
  const modelConfig = await readModelConfig(config, tokenizer, folder);
  const missing = requireRows(tokenizer, modelConfig.vocabSize);
  if (missing) events.warn(missing);
  await requirePrompts(config, tokenizer, modelConfig.vocabSize);
  const requireSame = (now: Partial<RunSources>) => {
    const name = folder ? `the model ${folder}` : 'the model';
    const { files, validation } = config.data;
    const held = validation && 'files' in validation ? validation.files : files;
    const places = {
      modelConfig: `${name} (config.json)`,
      weights: `${name} (its weights)`,
      tokenizer: `the tokenizer ${source}`,
      data: `the data ${files.join(', ')}`,
      validation: `the validation data ${held.join(', ')}`,
    };
    if (state) requireSameSources(state.sources, now, outDir, places);
    return now;
  };
  const known = { modelConfig: hashOf(modelConfig.source), tokenizer: await tokenizerHashes(tokenizer) };
  requireSame(known);
  const data = await ranks.inTurn(() => openRunData(config, tokenizer, modelConfig.vocabSize));
  try {
    const texts = { data: data.fingerprint, validation: data.validationFingerprint };
    requireSame(texts);
    requireRope(modelConfig, data, config.batchSize);
    requireSequenceModel(modelConfig, config.parallel.sequence);
    for (const note of data.notes) events.warn({ code: 'documents', message: formatNote(note) });
    if (data.validation && config.evaluation.everySteps === undefined) {
      events.warn({
        code: 'unused-validation',
        message: 'data.validation is held back and never used: set evaluation.everySteps',
      });
    }
    const earlier = change ? null : (state?.policy ?? null); // another machine has another memory
    const plan = await planRun(config, modelConfig, {
      device,
      data,
      earlier,
      mayChange: allowOtherMachine,
      shards: ranks.shards(config),
    });
    if (earlier && !plan.isContinued) {
      const message =
        'the run goes on with another policy, since its own does not fit: its losses have other last bits';
      events.warn({ code: 'inexact', message });
    }
    using model = await makeModel(config, device, modelConfig, folder);
    const weights = folder ? await weightsHash(model) : null;
    requireSame({ weights });
    await giveAdapters(model, config);
    const sources = { ...known, ...texts, weights };
    await ranks.requireSame('model, tokenizer, data or checkpoint', hashOf([sources, state?.step ?? 0]));
    const [policy] = await ranks.gather(plan.policy);
    const origin = { state, plan: { ...plan, policy: policy! }, machine, sources };
    const parts = { model, tokenizer, data, checkpoints, events, signal, ranks, group };
    return await new Run(config, { ...parts, ...origin }).run();
  } finally {
    await data.close();
  }
}

/** A run that goes on computes with as many threads as before, unless the configuration says otherwise. */
function openRunDevice(config: RunConfig, state: RunState | null, ranks: RunRanks): Device {
  const { memoryLimit, hostMemoryLimit, attention, matmul, tuneMatmul, deterministic } = config;
  const target = state?.machine.target;
  const threads = config.threads ?? (target?.kind === 'cpu' ? target.threads : undefined);
  const sharedBy = ranks.store?.place.localSize ?? 1;
  const settings = {
    threads,
    memoryLimit,
    hostMemoryLimit,
    attention,
    matmul,
    tuneMatmul,
    deterministic,
    sharedBy,
  };
  return openDevice(deviceOfRank(config, ranks) as DeviceName, settings);
}

/** What config.json says, before any weights are read. */
async function readModelConfig(config: RunConfig, tokenizer: Tokenizer, folder: string | null): Promise<DecoderConfig> {
  const modelConfig =
    'config' in config.model
      ? decoderConfig({ vocab_size: tokenizer.vocabSize, ...config.model.config })
      : decoderConfig(await readConfig(folder!), config.model);
  return modelConfig;
}

async function makeModel(
  { model, dtype, gradientDtype, seed }: RunConfig,
  device: Device,
  modelConfig: DecoderConfig,
  folder: string | null,
): Promise<Decoder> {
  if ('config' in model) return new Decoder(modelConfig, { device, dtype, gradientDtype }).initialize(seed);
  const { ignoreFields, quantization } = model;
  return await loadModel(folder!, { device, dtype, gradientDtype, ignoreFields, quantization });
}

async function giveAdapters(model: Decoder, { lora, seed, model: from }: RunConfig): Promise<void> {
  const ignoreFields = 'path' in from ? from.ignoreFields : [];
  if (lora?.from !== undefined) await loadAdapter(model, lora.from, { ignoreFields });
  else if (lora) addLora(model, { ...lora, rank: lora.rank!, seed });
}
