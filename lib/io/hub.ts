// Models by name from the HuggingFace Hub, into its cache. `@huggingface/hub` is an optional peer dependency, loaded when it is needed.
import { existsSync } from 'node:fs';
import { dirname } from 'node:path';

export interface HubOptions {
  /** Branch, tag or commit of a model on the Hub. @default 'main' */
  revision?: string;
  /** Where downloads are kept. @default HuggingFace's own cache */
  cacheDir?: string;
  /** For models that are not public. @default the environment's HF_TOKEN */
  accessToken?: string;
  /** Stands in for the network. */
  fetch?: typeof fetch;
}

/** What a model needs: its config, tokenizer and safetensors, at the top of the repository. */
const WANTED = /^[^/]+\.(safetensors|json|jinja)$|^(tokenizer\.model|merges\.txt)$/;
const NAME = /^[\w.-]+\/[\w.-]+$/;

/**
 * The folder of a model: a path as it is, or `org/name`, whose config, tokenizer and safetensors files are downloaded into the cache
 * once. An interrupted download begins that file again. Throws with what to install where the Hub's package is missing.
 */
export async function resolveModelFolder(pathOrName: string, options: HubOptions = {}): Promise<string> {
  if (existsSync(pathOrName) || !NAME.test(pathOrName)) return pathOrName;
  const hub = await importHub(pathOrName);
  const { revision = 'main', cacheDir, accessToken = process.env.HF_TOKEN, fetch } = options;
  const credentials = accessToken ? { accessToken } : {};
  // One commit for all files: the cache keeps each commit's in a folder of its own.
  const { sha } = await hub.modelInfo({ name: pathOrName, revision, fetch, ...credentials, additionalFields: ['sha'] });
  const common = { repo: pathOrName, revision: sha, fetch, ...credentials };
  const paths: string[] = [];
  for await (const file of hub.listFiles(common))
    if (file.type === 'file' && WANTED.test(file.path)) paths.push(file.path);
  if (!paths.includes('config.json')) throw new Error(`${pathOrName}: has no config.json on the Hub at ${revision}`);
  if (!paths.some((path) => path.endsWith('.safetensors'))) {
    throw new Error(`${pathOrName}: has no safetensors files on the Hub at ${revision}`);
  }
  let folder = '';
  for (const path of paths) folder = dirname(await hub.downloadFileToCacheDir({ ...common, path, cacheDir }));
  return folder;
}

async function importHub(name: string): Promise<typeof import('@huggingface/hub')> {
  try {
    return await import('@huggingface/hub');
  } catch (error) {
    throw new Error(
      `${name}: is no folder here; to fetch it from the Hub by its name, run  npm install @huggingface/hub`,
      { cause: error },
    );
  }
}
