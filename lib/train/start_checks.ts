// Checks before the first step of a run for what would fail, or destroy something, later.
import { realpath, stat, statfs } from 'node:fs/promises';
import { dirname, join, sep } from 'node:path';
import { fileDtypes } from '../io/elements.ts';
import { ADAPTER_FILES, INDEX_FILE, WEIGHTS_FILE } from '../io/model_folder.ts';
import type { Decoder } from '../models/decoder.ts';
import type { DecoderConfig } from '../models/decoder_config.ts';
import { longestShort } from '../models/rope_tables.ts';
import type { AdamW } from '../optim/adamw.ts';
import { formatBytes } from '../runtime/memory/statistics.ts';
import { dtypeBytes } from '../runtime/safetensors_dtype.ts';
import type { Tensor } from '../runtime/tensor.ts';
import { findFiles } from '../text/records/find_files.ts';
import type { Tokenizer } from '../text/tokenizer.ts';
import type { RunConfig } from './config.ts';
import type { RunWarning } from './events.ts';
import type { RunData } from './run_data.ts';

/** Files and folders that a run writes in its own. */
const FILES = [
  'config.yaml',
  'metrics.jsonl',
  'samples.jsonl',
  'run.json',
  'report.html',
  'config.json',
  'model.safetensors',
  'model.safetensors.index.json',
  'adapter_config.json',
  'adapter_model.safetensors',
];
const FOLDERS = ['checkpoints', 'data', 'tensorboard'];

/** A run overwrites nothing that it reads: neither the model that it begins with, nor its tokenizer, nor its data. */
export async function requireOwnFolder(config: RunConfig): Promise<void> {
  const { model, tokenizer, lora, data, outDir } = config;
  const own = await realpath(outDir).catch(() => null);
  if (own === null) return; // it is new
  const read: [option: string, path: string | undefined][] = [
    ['model.path', 'path' in model ? model.path : undefined],
    ['lora.from', lora?.from],
    ['tokenizer', tokenizer === 'bytes' || !tokenizer ? undefined : dirname(tokenizer)],
  ];
  for (const [option, path] of read) {
    const real = path === undefined ? null : await realpath(path).catch(() => null);
    const place = real === own ? 'lies there' : real?.startsWith(join(own, 'checkpoints') + sep) ? 'lies in it' : null;
    if (place)
      throw new Error(`outDir: ${outDir} would be written over: ${option} (${path}) ${place}; choose another outDir`);
  }
  const files = [...data.files, ...(data.validation && 'files' in data.validation ? data.validation.files : [])];
  for (const path of await findFiles(files)) {
    const real = await realpath(path).catch(() => null);
    const name = FILES.find((name) => real === join(own, name));
    if (name)
      throw new Error(`outDir: ${outDir} would be written over: the run writes ${name}, which data.files names`);
  }
}

/** The file of a model or an adapter in a run's folder; null where there is none. */
export async function modelIn(outDir: string): Promise<string | null> {
  for (const name of ['model.safetensors', 'model.safetensors.index.json', 'adapter_model.safetensors']) {
    if (await stat(join(outDir, name)).catch(() => null)) return name;
  }
  return null;
}

/** A run that ended without a checkpoint cannot continue; starting again would overwrite its model. */
export async function requireUnfinished(outDir: string): Promise<void> {
  const name = await modelIn(outDir);
  if (name === null) return;
  throw new Error(`${outDir}: holds ${name} and no checkpoint that --resume could go on from; choose another outDir`);
}

/** A folder that is used again holds no model beside an adapter: readers would take the one for the other's. */
export async function requireOwnKind({ outDir, lora }: RunConfig): Promise<void> {
  const others = lora ? [WEIGHTS_FILE, INDEX_FILE] : ADAPTER_FILES;
  for (const name of others) {
    if (!(await stat(join(outDir, name)).catch(() => null))) continue;
    throw new Error(
      `${outDir}: holds ${name} of an earlier run, and this run saves ${lora ? 'an adapter' : 'a model'}: remove it, or choose another outDir`,
    );
  }
}

/** No file is where the run writes a folder, nor the other way round. */
export async function requirePlaces(outDir: string): Promise<void> {
  for (const name of [...FILES, ...FOLDERS]) {
    const found = await stat(join(outDir, name)).catch(() => null);
    const expectsFolder = FOLDERS.includes(name);
    if (found && found.isDirectory() !== expectsFolder) {
      const [is, writes] = expectsFolder ? ['a file', 'folder'] : ['a folder', 'file'];
      throw new Error(`${join(outDir, name)}: is ${is}, and the run writes a ${writes} of this name`);
    }
  }
}

/** Samples can be written: each prompt has tokens, and the model has rows for them. */
export async function requirePrompts({ samples }: RunConfig, tokenizer: Tokenizer, V: number): Promise<void> {
  if (samples.everySteps === undefined) return;
  for (const [i, prompt] of samples.prompts.entries()) {
    const ids = tokenizer.wrap(await tokenizer.encode(prompt), { begin: true });
    if (ids.length === 0) throw new Error(`samples.prompts[${i}]: ${JSON.stringify(prompt)} has no tokens`);
    const wrong = ids.find((id) => id >= V);
    if (wrong !== undefined) throw new RangeError(`samples.prompts[${i}]: has id ${wrong}, outside [0, ${V})`);
  }
}

/**
 * With dynamic rope and longrope a whole batch has the frequencies of its longest sequence, as in transformers. Beyond the length up to
 * which all sequences have the same, a document must not share a sequence or a batch with longer ones that have others: generation would
 * use other frequencies than training did.
 */
export function requireRope({ layers }: DecoderConfig, { training, validation }: RunData, batchSize: number): void {
  const rope = layers.map(({ attention }) => attention.rope).find((rope) => rope && longestShort(rope) < Infinity);
  if (!rope) return;
  const most = longestShort(rope);
  const name = rope.type === 'dynamic' ? 'dynamic rope' : rope.type;
  const field = `${rope.type === 'dynamic' ? '' : 'original_'}max_position_embeddings`;
  for (const [option, dataset] of Object.entries({ 'data.files': training, 'data.validation': validation })) {
    if (dataset?.isPacked && dataset.T > most) {
      throw new RangeError(
        `${option}: packed sequences have ${dataset.T} rows, and ${name} beyond ${field} ` +
          `${most} needs one document a sequence: set data.packing false, or a shorter sequenceLength`,
      );
    }
    const { shortest, longest } = dataset?.extremes ?? { shortest: 0, longest: 0 };
    const differ = shortest < (rope.type === 'dynamic' ? longest : most + 1);
    if (batchSize > 1 && longest > most && differ) {
      throw new RangeError(
        `batchSize: ${batchSize} sequences of ${shortest} to ${longest} rows (${option}) would share the frequencies of ${name}, which ` +
          `beyond ${field} ${most} are those of one length: set batchSize 1 (and accumulationSteps), or a shorter sequenceLength`,
      );
    }
  }
}

/** The disk has room for the model, and for the checkpoints that exist at the same time. */
export async function requireSpace(
  config: RunConfig,
  model: Decoder,
  optimizer: AdamW,
  numCheckpoints: { present: number; more: number },
): Promise<void> {
  const { outDir, checkpoint, evaluation } = config;
  const disk = await statfs(outDir).catch(() => null);
  if (!disk || disk.blocks === 0) return; // the file system does not report it
  const parameters = model.lora ? model.trainableParameters() : model.parameters();
  const inMemory = (tensors: Iterable<Tensor>) => [...tensors].reduce((sum, { sizeBytes }) => sum + sizeBytes, 0);
  const ofModel = parameters.reduce((sum, { name, size, dtype }) => {
    const stored = model.lora ? undefined : model.origin?.stored.get(name!)?.dtype;
    return sum + size * dtypeBytes[stored ?? fileDtypes[dtype]];
  }, 0);
  const ofCheckpoint =
    inMemory(parameters) + inMemory([...optimizer.state()].map(([, tensor]) => tensor)) * (optimizer.shards?.size ?? 1);
  const best = checkpoint.keepBest && evaluation.everySteps !== undefined ? 1 : 0;
  const left = Math.max(0, checkpoint.keepLast + best - numCheckpoints.present);
  const atOnce = checkpoint.everySteps === undefined ? 0 : Math.min(numCheckpoints.more, left);
  const free = disk.bavail * disk.bsize;
  const needed = ofModel + atOnce * ofCheckpoint;
  if (needed > free) {
    throw new Error(
      `${outDir}: the disk has ${formatBytes(free)} free, and the run writes ${formatBytes(needed)}: ` +
        `the ${model.lora ? 'adapter' : 'model'} of ${formatBytes(ofModel)}` +
        (atOnce > 0 ? `, and ${atOnce} checkpoints of ${formatBytes(ofCheckpoint)} each` : ''),
    );
  }
}

/**
 * Refuses a tokenizer with more ids than the model has rows. Added tokens without a row only give a warning, since texts may not use them:
 * Gemma 3 has one for images.
 */
export function requireRows({ vocabSize, addedTokens, path }: Tokenizer, V: number): RunWarning | null {
  if (vocabSize <= V) return null;
  const beyond = addedTokens.filter(({ id }) => id >= V).map(({ id, content }) => `${content} (${id})`);
  if (beyond.length < vocabSize - V) {
    throw new RangeError(`train: the tokenizer has ${vocabSize} ids, the model's vocabulary ${V}`);
  }
  const names = `${beyond.slice(0, 5).join(', ')}${beyond.length > 5 ? ', …' : ''}`;
  const message = `the model's vocabulary of ${V} has no row for added tokens of ${path}: ${names}. A text with one of them is refused.`;
  return { code: 'tokens-without-row', message };
}
