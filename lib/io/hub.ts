// Downloads models by name from the HuggingFace Hub into its cache. `@huggingface/hub` is an optional peer dependency, loaded when needed.
// Responses of the Hub (or of a mirror or proxy) are not trusted: only files that will be read are fetched, and ids are checked, since they
// become names in the cache.
import { existsSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { brief } from '../brief.ts';
import { CARRIED_FILES, INDEX_FILE, readIndex, WEIGHTS_FILE, whatIsThere } from './model_folder.ts';

export interface HubOptions {
  /** Branch, tag or commit of a model on the Hub. @default 'main' */
  revision?: string;
  /** Folder for downloads. @default HuggingFace's cache */
  cacheDir?: string;
  /** Access token, for models that are not public. @default HF_TOKEN in the environment */
  accessToken?: string;
  /** Used instead of the network, for tests. */
  fetch?: typeof fetch;
}

/** The Hub's rules for names: letters, digits, '_', '-', '.'; the last two neither doubled nor at an end; at most 96 characters; no '.git'. */
const NAME = /^(?!.*(--|\.\.))\w([\w.-]{0,94}\w)?\/(?!.*\.git$)\w([\w.-]{0,94}\w)?$/;
const ID = /^[0-9a-f]{40,64}$/;
/** Most files and folders of a repository that are listed. */
const MAX_FILES = 10_000;

/**
 * The folder of a model. A path is returned as it is. For `org/name`, config, tokenizer and weights (model.safetensors, or its index and the
 * shards that it names) are downloaded into the cache once. After an interruption, the download of that file starts again. If the Hub's
 * package is missing, the error says what to install. No message contains the access token.
 */
export async function resolveModelFolder(pathOrName: string, options: HubOptions = {}): Promise<string> {
  if (existsSync(pathOrName) || !NAME.test(pathOrName)) return pathOrName;
  const hub = await importHub(pathOrName);
  const token = cleanToken(pathOrName, options.accessToken ?? process.env.HF_TOKEN);
  try {
    return await download(hub, pathOrName, token, options);
  } catch (error) {
    throw explained(pathOrName, token, options.revision, error);
  }
}

async function download(
  hub: typeof import('@huggingface/hub'),
  name: string,
  token: string | undefined,
  { revision = 'main', cacheDir, fetch = globalThis.fetch }: HubOptions,
): Promise<string> {
  const credentials = { fetch: checkedFetch(name, fetch), ...(token ? { accessToken: token } : {}) };
  // All files must be of one commit: the cache has a folder for each commit.
  const { sha } = await hub.modelInfo({ name, revision, ...credentials, additionalFields: ['sha'] });
  requireId(name, 'the commit', sha);
  const common = { repo: name, revision: sha, ...credentials };
  const there = new Set<string>();
  const folders = new Set<string>();
  const list = async (path?: string) => {
    for await (const entry of hub.listFiles({ ...common, path })) {
      if (there.size + folders.size >= MAX_FILES)
        throw new Error(`${name}: has more than ${MAX_FILES} files on the Hub`);
      if (entry.type === 'file') there.add(entry.path);
      if (entry.type === 'directory') folders.add(entry.path);
    }
  };
  await list();
  for (const path of new Set(CARRIED_FILES.map((file) => dirname(file)))) if (folders.has(path)) await list(path);
  if (!there.has('config.json')) throw new Error(`${name}: has no config.json on the Hub at ${revision}`);
  let folder: string | null = null;
  const get = async (path: string) => {
    const file = await hub.downloadFileToCacheDir({ ...common, path, cacheDir });
    const found = join(file, ...path.split('/').map(() => '..'));
    if (folder !== null && found !== folder)
      throw new Error(`${name}: the files of one commit were stored in two folders`);
    folder = found;
    return found;
  };
  for (const path of ['config.json', ...CARRIED_FILES]) if (there.has(path)) await get(path);
  if (there.has(WEIGHTS_FILE)) return await get(WEIGHTS_FILE);
  if (!there.has(INDEX_FILE)) {
    const problem = `has neither ${WEIGHTS_FILE} nor ${INDEX_FILE} on the Hub at ${revision}`;
    throw new Error(`${name}: ${problem}; ${whatIsThere([...there])}`);
  }
  const index = await readIndex(await get(INDEX_FILE));
  for (const shard of new Set(index!.values())) {
    if (!there.has(shard)) throw new Error(`${name}: ${INDEX_FILE} names ${brief(shard)}, which is not on the Hub`);
    await get(shard);
  }
  return folder!;
}

/** Refuses listings with malformed ids before they become paths. */
function checkedFetch(name: string, inner: typeof fetch): typeof fetch {
  return async (input, init) => {
    const response = await inner(input, init);
    const { pathname } = new URL(input instanceof Request ? input.url : input);
    if (!response.ok || !/\/(paths-info|tree)\//.test(pathname)) return response;
    const entries: unknown = await response.clone().json();
    for (const entry of Array.isArray(entries) ? entries : []) {
      const { path, oid, lfs, xetHash, lastCommit } = entry ?? {};
      for (const id of [oid, lfs?.oid, xetHash, lastCommit?.id]) {
        if (id !== undefined && id !== null) requireId(name, `an id of ${brief(path)}`, id);
      }
    }
    return response;
  };
}

function requireId(name: string, what: string, id: unknown): void {
  if (typeof id !== 'string' || !ID.test(id)) {
    throw new Error(`${name}: the Hub says that ${what} is ${brief(id)}, but it must be 40 to 64 hexadecimal digits`);
  }
}

/** The token without a trailing line break. Throws if it cannot be sent in a header; the message does not contain it. */
function cleanToken(name: string, token: string | undefined): string | undefined {
  const clean = token?.trim();
  if (clean && !/^[\x21-\x7e]+$/.test(clean)) {
    throw new Error(
      `${name}: the access token (HF_TOKEN) contains a space, a line break or another character that no token has`,
    );
  }
  return clean || undefined;
}

/** The error with the model's name and advice, but without the token. */
function explained(name: string, token: string | undefined, revision: string | undefined, error: unknown): Error {
  const { message, statusCode } = error as Error & { statusCode?: number };
  const hide = (text: string) => (token ? text.replaceAll(token, '***') : text);
  let text = hide(message);
  if (!text.startsWith(name)) text = `${name}: no such folder, and fetching it from the Hub failed: ${text}`;
  if (statusCode === 404) text += `; is there such a model${revision ? ` and revision ${revision}` : ''}?`;
  if (statusCode === 401 || statusCode === 403) {
    text += '; where it is private or gated, agree to its terms on the Hub and set HF_TOKEN';
  }
  const isSafe = !token || !`${(error as Error).stack}${JSON.stringify(error)}`.includes(token);
  return new Error(text, isSafe ? { cause: error } : undefined);
}

async function importHub(name: string): Promise<typeof import('@huggingface/hub')> {
  try {
    return await import('@huggingface/hub');
  } catch (error) {
    throw new Error(
      `${name}: no such folder; to fetch a model from the Hub by its name, run  npm install @huggingface/hub`,
      { cause: error },
    );
  }
}
