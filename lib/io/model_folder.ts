// A model's folder in HuggingFace's layout: one safetensors file, or shards with an index, and further files.
import { constants } from 'node:fs';
import { lstat, mkdir, open, readdir, realpath, rm, rmdir, stat } from 'node:fs/promises';
import { dirname, join, sep } from 'node:path';
import { brief } from '../brief.ts';
import { parseJsonFile, readSmallFile } from './json.ts';
import { SafetensorsError, SafetensorsFile } from './safetensors.ts';
import { writeFully, writeWhole } from './whole_file.ts';

export const WEIGHTS_FILE = 'model.safetensors';
export const INDEX_FILE = 'model.safetensors.index.json';

/** Files of an adapter's folder; readers take a folder with these for an adapter. */
export const ADAPTER_FILES = ['adapter_config.json', 'adapter_model.safetensors'];

/** File of the chat template in a model's folder. */
export const CHAT_TEMPLATE_FILE = 'chat_template.jinja';
/** File of the chat template for conversations with tools. */
export const TOOL_TEMPLATE_FILE = 'additional_chat_templates/tool_use.jinja';

/** Files that a fine-tuned model takes from its original. */
export const CARRIED_FILES = [
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'tokenizer.model',
  'vocab.json',
  'merges.txt',
  CHAT_TEMPLATE_FILE,
  TOOL_TEMPLATE_FILE,
  'chat_template.json',
  'processor_config.json',
  'preprocessor_config.json',
  'video_preprocessor_config.json',
  'generation_config.json',
];
const PIECE_BYTES = 2 ** 22;

/**
 * Writes the chat template that a model was trained with, and removes all others.
 * @param toolTemplate the template for conversations with tools; null: `template` is for them too
 */
export async function writeChatTemplate(folder: string, template: string, toolTemplate: string | null): Promise<void> {
  const write = async (name: string, text: string) => {
    await mkdir(await ownFolderOf(folder, name), { recursive: true });
    await writeWhole(join(folder, name), (file) => writeFully(file, new TextEncoder().encode(text)));
  };
  await write(CHAT_TEMPLATE_FILE, template);
  if (toolTemplate === null) await removeFrom(folder, TOOL_TEMPLATE_FILE);
  else await write(TOOL_TEMPLATE_FILE, toolTemplate);
}

/**
 * Copies the files of tokenizer and generation that `from` has, each atomically. Skips a link out of the folder, with a warning: a
 * downloaded link could point to any file of the user.
 */
export async function carryFiles(from: string, to: string): Promise<void> {
  for (const name of CARRIED_FILES) {
    const source = await sourceOf(from, name);
    if (!source) continue;
    const handle = await open(source, constants.O_RDONLY | constants.O_NOFOLLOW);
    try {
      await mkdir(await ownFolderOf(to, name), { recursive: true });
      await writeWhole(join(to, name), async (copy) => {
        const piece = new Uint8Array(PIECE_BYTES);
        for (let read = 1; read > 0; ) {
          read = (await handle.read(piece, 0, piece.length)).bytesRead;
          await writeFully(copy, piece.subarray(0, read));
        }
      });
    } finally {
      await handle.close();
    }
  }
}

/** Removes such files of an earlier save: those that are neither in `from` nor in `written`. */
export async function removeUncarried(from: string | null, to: string, written: readonly string[]): Promise<void> {
  for (const name of CARRIED_FILES) {
    if (written.includes(name) || (from !== null && (await sourceOf(from, name)))) continue;
    await removeFrom(to, name);
  }
}

async function removeFrom(folder: string, name: string): Promise<void> {
  const own = await ownFolderOf(folder, name);
  await rm(join(folder, name), { force: true });
  if (dirname(name) !== '.') await rmdir(own).catch(() => {}); // the folder does not exist, or holds other files
}

/** Path of a file in `folder`. Removes a link in place of a subfolder, since it could point anywhere. */
async function ownFolderOf(folder: string, name: string): Promise<string> {
  const own = join(folder, dirname(name));
  if (dirname(name) !== '.' && (await lstat(own).catch(() => null))?.isSymbolicLink()) await rm(own);
  return own;
}

/** The real path of a file; null if there is no such file, or if it may not be copied. */
async function sourceOf(folder: string, name: string): Promise<string | null> {
  const path = join(folder, name);
  try {
    const [root, real] = [await realpath(folder), await realpath(path)];
    if (!(await stat(real)).isFile()) return null;
    // In HuggingFace's cache, NAME/snapshots/COMMIT/file is a link into NAME/blobs.
    const snapshot = /^(.*[/\\])snapshots[/\\][^/\\]+([/\\]|$)/.exec(root);
    const roots = snapshot ? [root, `${snapshot[1]}blobs`] : [root];
    if (roots.some((each) => real.startsWith(each + sep))) return real;
  } catch (error) {
    if (['ENOENT', 'ENOTDIR', 'ELOOP'].includes((error as NodeJS.ErrnoException).code ?? '')) return null;
    throw error;
  }
  process.emitWarning(`${path}: is not copied, since it is a link out of the model's folder`, {
    code: 'MINISEQUENCE_LINK_LEFT_OUT',
  });
  return null;
}

/** The tensors of a model's folder: `model.safetensors`, or the shards that `model.safetensors.index.json` names. */
export async function openModelFolder(folder: string): Promise<Map<string, SafetensorsFile>> {
  const byTensor = new Map<string, SafetensorsFile>();
  const files: SafetensorsFile[] = [];
  try {
    // If both exist, the single file counts, as in transformers: the index is left from an earlier save.
    const shardOf = (await isThere(join(folder, WEIGHTS_FILE))) ? null : await readIndex(folder);
    for (const shard of shardOf ? new Set(shardOf.values()) : [WEIGHTS_FILE]) {
      const file = await openShard(folder, shard, shardOf !== null);
      files.push(file);
      for (const name of file.entries.keys()) {
        const other = byTensor.get(name);
        if (other) throw new SafetensorsError(`${file.path}: tensor '${name}' is also in ${other.path}`);
        byTensor.set(name, file);
      }
      if (file.entries.size === 0) await file.close();
    }
    for (const [name, shard] of shardOf ?? []) {
      const path = join(folder, shard);
      if (byTensor.get(name)?.path !== path)
        throw new SafetensorsError(`${path}: has no tensor '${name}', which ${INDEX_FILE} says it has`);
    }
    return byTensor;
  } catch (error) {
    for (const file of files) await file.close();
    throw error;
  }
}

async function isThere(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  );
}

async function openShard(folder: string, shard: string, isIndexed: boolean): Promise<SafetensorsFile> {
  const path = join(folder, shard);
  try {
    return await SafetensorsFile.open(path);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    const problem = isIndexed
      ? `does not exist, but ${join(folder, INDEX_FILE)} names it: fetch or copy it again`
      : `does not exist; ${whatIsThere(await readdir(folder).catch(() => []))}`;
    throw new SafetensorsError(`${path}: ${problem}`, { cause: error });
  }
}

/** Describes a folder without model.safetensors and index: what it holds instead, and what to do. */
export function whatIsThere(names: readonly string[]): string {
  const matching = (pattern: RegExp) => names.filter((name) => pattern.test(name)).sort();
  const some = (found: string[]) =>
    found.length > 1 ? `${found[0]} and ${found.length - 1} more are` : `${found[0]} is`;
  const shards = matching(/-of-\d+\.safetensors$/);
  if (shards.length > 0) return `${some(shards)} there without ${INDEX_FILE}, which says what they hold: fetch it too`;
  const adapter = matching(/^adapter_model\./);
  if (adapter.length > 0) {
    return `${some(adapter)} there: the folder holds an adapter; give its base model as the model, and this folder as --adapter`;
  }
  const pytorch = matching(/^(pytorch_)?model.*\.(bin|pth?)$/);
  if (pytorch.length > 0) {
    return `${some(pytorch)} in PyTorch's format: convert to safetensors, by transformers' from_pretrained and save_pretrained`;
  }
  const gguf = matching(/\.gguf$/);
  if (gguf.length > 0) return `${some(gguf)} in GGUF's format, which is not supported: use the model's safetensors`;
  const others = matching(/\.safetensors$/);
  if (others.length > 0) return `${some(others)} there, but transformers reads ${WEIGHTS_FILE} or ${INDEX_FILE} alone`;
  const foreign = matching(/^(tf_model\.h5|flax_model.*\.msgpack|model\.ckpt.*)$/);
  if (foreign.length > 0) return `${some(foreign)} there: convert to safetensors`;
  return 'the folder holds no weights';
}

/** The shard of each tensor, by name; null if the folder has no index. */
export async function readIndex(folder: string): Promise<Map<string, string> | null> {
  const path = join(folder, INDEX_FILE);
  let index: unknown;
  try {
    index = parseJsonFile(path, await readSmallFile(path));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw new SafetensorsError((error as Error).message, { cause: error });
  }
  return checkedIndex(path, (index as { weight_map?: unknown } | null)?.weight_map);
}

/** An index's weight_map. It may only name files in its own folder. */
function checkedIndex(path: string, map: unknown): Map<string, string> {
  if (typeof map !== 'object' || map === null || Array.isArray(map)) {
    throw new SafetensorsError(`${path}: has no weight_map`);
  }
  for (const shard of Object.values(map)) {
    if (typeof shard !== 'string' || !/^[^/\\]*[^/\\.]$/.test(shard))
      throw new SafetensorsError(`${path}: ${brief(shard)} is not the name of a file in its folder`);
  }
  return new Map(Object.entries(map as Record<string, string>));
}
