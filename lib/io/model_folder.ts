// A model's folder in HuggingFace's layout: one safetensors file or shards with an index, and the files beside them.
import { copyFile, readFile, rename } from 'node:fs/promises';
import { join } from 'node:path';
import { SafetensorsError, SafetensorsFile } from './safetensors.ts';

export const WEIGHTS_FILE = 'model.safetensors';
export const INDEX_FILE = 'model.safetensors.index.json';

/** What a fine-tuned model takes over from the one it came from. */
const CARRIED_FILES = [
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'tokenizer.model',
  'vocab.json',
  'merges.txt',
  'chat_template.jinja',
  'chat_template.json',
  'generation_config.json',
];

/** Copies the tokenizer's and the generation's files that `from` has; each appears whole or not at all. */
export async function carryFiles(from: string, to: string): Promise<void> {
  for (const name of CARRIED_FILES) {
    const path = join(to, name);
    try {
      await copyFile(join(from, name), `${path}.tmp`);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') continue;
      throw error;
    }
    await rename(`${path}.tmp`, path);
  }
}

/** The tensors of a model's folder: `model.safetensors`, or the shards that `model.safetensors.index.json` names. */
export async function openModelFolder(folder: string): Promise<Map<string, SafetensorsFile>> {
  const byTensor = new Map<string, SafetensorsFile>();
  const files: SafetensorsFile[] = [];
  try {
    const shardOf = await readIndex(folder);
    for (const shard of shardOf ? new Set(shardOf.values()) : [WEIGHTS_FILE]) {
      const file = await SafetensorsFile.open(join(folder, shard));
      files.push(file);
      for (const name of file.entries.keys()) {
        const other = byTensor.get(name);
        if (other) throw new SafetensorsError(`${file.path}: tensor '${name}' is in ${other.path} already`);
        byTensor.set(name, file);
      }
      if (file.entries.size === 0) await file.close();
    }
    for (const [name, shard] of shardOf ?? []) {
      const path = join(folder, shard);
      if (byTensor.get(name)?.path !== path)
        throw new SafetensorsError(`${path}: has no tensor '${name}', which the index says it has`);
    }
    return byTensor;
  } catch (error) {
    for (const file of files) await file.close();
    throw error;
  }
}

/** Tensor names and the shards that hold them; null where the folder has no index. */
async function readIndex(folder: string): Promise<Map<string, string> | null> {
  const path = join(folder, INDEX_FILE);
  let text: string;
  try {
    text = await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    return null;
  }
  let map: unknown;
  try {
    map = (JSON.parse(text) as { weight_map?: unknown } | null)?.weight_map;
  } catch (error) {
    throw new SafetensorsError(`${path}: not JSON: ${(error as Error).message}`);
  }
  if (typeof map !== 'object' || map === null) throw new SafetensorsError(`${path}: has no weight_map`);
  for (const shard of Object.values(map)) {
    if (typeof shard !== 'string' || !/^[^/\\]*[^/\\.]$/.test(shard))
      throw new SafetensorsError(`${path}: ${JSON.stringify(shard)} is not the name of a file in its folder`);
  }
  return new Map(Object.entries(map as Record<string, string>));
}
