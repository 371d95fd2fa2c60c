// Runs of a tiny model, in folders that are gone when the process ends.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  Decoder,
  decoderConfig,
  parseConfig,
  type RunConfigInput,
  saveModel,
  type TrainOptions,
  train,
} from '../../lib/index.ts';
import { openTestDevice, testDevice } from './devices.ts';

const root = mkdtempSync(join(tmpdir(), 'minisequence-test-'));
process.once('exit', () => rmSync(root, { recursive: true, force: true }));

/** A new folder. */
export function newFolder(): string {
  return mkdtempSync(join(root, 'run-'));
}

/** A file with this text. */
export function textFile(text: string): string {
  const path = join(newFolder(), 'text.txt');
  writeFileSync(path, text);
  return path;
}

/** Fields of config.json: 2 layers, V 256. */
export const tinyLlama = {
  model_type: 'llama',
  hidden_size: 32,
  intermediate_size: 88,
  num_hidden_layers: 2,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  vocab_size: 256,
  rms_norm_eps: 1e-5,
  rope_theta: 10000,
  tie_word_embeddings: false,
};

/** A run on 1000 bytes: 16 windows of 64 and their 999 targets. */
export function tinyRun(options: Partial<RunConfigInput> = {}): RunConfigInput {
  return {
    model: { config: tinyLlama },
    tokenizer: 'bytes',
    data: { files: [textFile('The quick brown fox jumps over the lazy dog.\n'.repeat(23).slice(0, 1000))] },
    sequenceLength: 64,
    optimizer: { learningRate: 3e-3 },
    schedule: { type: 'constant' },
    device: testDevice,
    threads: 2,
    chunkSizes: { mlp: 24, loss: 24 },
    mlpSave: 'input',
    recompute: 'attention',
    outDir: newFolder(),
    ...options,
  };
}

/** {@link tinyRun}, trained. */
export const run = (options: Partial<RunConfigInput>, trainOptions?: TrainOptions) =>
  train(parseConfig(tinyRun(options)), trainOptions);

/** Lines of metrics.jsonl without what depends on the clock. */
export async function linesOf(outDir: string): Promise<object[]> {
  const lines = (await readFile(join(outDir, 'metrics.jsonl'), 'utf8')).trim().split('\n');
  return lines.map((line) => {
    const { seconds, tokensPerSecond, ...rest } = JSON.parse(line);
    return rest;
  });
}

/** Names of a run's checkpoints, in order. */
export const stepsIn = async (outDir: string) => (await readdir(join(outDir, 'checkpoints'))).sort();

/** Bytes of a saved model. */
export const modelOf = (folder: string) => readFile(join(folder, 'model.safetensors'));

/** A folder with a tiny model of random weights; `change` has it before it is saved. */
export async function tinyModelFolder(
  fields: object = {},
  { tokenizerFrom, change }: { tokenizerFrom?: string; change?: (model: Decoder) => Promise<void> } = {},
): Promise<string> {
  using device = openTestDevice();
  using model = new Decoder(decoderConfig({ ...tinyLlama, ...fields }), { device }).initialize(1);
  await change?.(model);
  const folder = newFolder();
  await saveModel(model, folder, { tokenizerFrom });
  return folder;
}
