// Models by name: what is asked for, what is believed, what is told. A function plays the network.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { loadModel, openDevice, resolveModelFolder } from '../../lib/index.ts';
import { parity } from '../support/folders.ts';
import { newFolder } from '../support/runs.ts';

const sha = '0123456789abcdef0123456789abcdef01234567';
const idOf = (path: string) => createHash('sha1').update(path).digest('hex');
const small = {
  'config.json': '{}',
  'tokenizer.json': '{}',
  'chat_template.jinja': 'x',
  'additional_chat_templates/tool_use.jinja': 'y',
  'generation_config.json': '{}',
};
const unread = {
  'README.md': '',
  'params.json': '',
  'pytorch_model.bin': '',
  'tokenizer.model.v3': '',
  'onnx.json': '',
  'additional_chat_templates/rag.jinja': '',
  'onnx/model.onnx': '',
};

interface Played {
  files: Record<string, string | Buffer>;
  commit?: unknown;
  /** Instead of each file's. */
  id?: unknown;
  /** The status of every answer. */
  status?: number;
  /** The file whose bytes break off, once. */
  broken?: string;
}

/** Plays the Hub's API for one repository. */
function hub({ files, commit = sha, id, status = 200, broken }: Played) {
  const requests: string[] = [];
  const asked = new Set<string>();
  let isBroken = false;
  const entry = (path: string) => ({ type: 'file', path, oid: id ?? idOf(path), size: files[path]!.length });
  /** What lies in a folder of the repository, and in it alone. */
  const listing = (folder: string) => {
    const inside = folder === '' ? '' : `${folder}/`;
    const paths = Object.keys(files).filter((path) => path.startsWith(inside));
    const names = new Set(paths.map((path) => inside + path.slice(inside.length).split('/')[0]));
    return [...names].map((path) =>
      path in files ? entry(path) : { type: 'directory', path, oid: idOf(path), size: 0 },
    );
  };
  const answer = async (url: URL, init?: RequestInit): Promise<Response> => {
    requests.push(`${url} ${new Headers(init?.headers).get('authorization')}`);
    if (status !== 200)
      return Response.json({ error: `no, ${new Headers(init?.headers).get('authorization')}` }, { status });
    const { pathname } = url;
    if (pathname.includes('/revision/')) return Response.json({ _id: '1', id: 'org/name', sha: commit });
    const tree = /\/tree\/[^/]+\/?(.*)$/.exec(pathname);
    if (tree) return Response.json(listing(tree[1]!));
    if (pathname.includes('/paths-info/')) {
      const { paths } = JSON.parse(String(init?.body)) as { paths: string[] };
      return Response.json(paths.map(entry));
    }
    const name = /\/resolve\/[^/]+\/(.*)$/.exec(pathname)![1]!;
    asked.add(name);
    const bytes = Buffer.from(files[name]!);
    const range = /bytes=(\d+)-(\d+)/.exec(new Headers(init?.headers).get('range') ?? '');
    if (name === broken && range?.[2] !== '0' && !isBroken) {
      isBroken = true;
      return new Response(
        new ReadableStream({
          start(controller) {
            controller.enqueue(bytes.subarray(0, 100));
            controller.error(new Error('connection reset'));
          },
        }),
      );
    }
    const part = range ? bytes.subarray(Number(range[1]), Number(range[2]) + 1) : bytes;
    const headers = { etag: `"${idOf(name)}"`, 'content-range': `bytes 0-0/${bytes.length}` };
    return new Response(part, { status: range ? 206 : 200, headers });
  };
  const fake = (input: string | URL | Request, init?: RequestInit) =>
    answer(new URL(input instanceof Request ? input.url : input), init);
  return { fetch: fake as typeof fetch, requests, asked };
}

const model = () => {
  const files = ['config.json', 'model.safetensors'].map((name) => [name, readFileSync(join(parity('llama'), name))]);
  return Object.fromEntries(files) as Record<string, Buffer>;
};

const { debug } = console;

describe('a model of the Hub', () => {
  before(() => {
    console.debug = () => {}; // @huggingface/hub tells of each file
  });
  after(() => {
    console.debug = debug;
  });

  it('is fetched once, and what is read alone', async () => {
    const cacheDir = newFolder();
    const first = hub({ files: { ...model(), ...unread } });
    using device = openDevice('cpu');
    using loaded = await loadModel('org/name', { device, cacheDir, fetch: first.fetch });
    assert.equal(loaded.config.vocabSize, 320);
    const second = hub({ files: { ...model(), ...unread } });
    const folder = await resolveModelFolder('org/name', { cacheDir, fetch: second.fetch });
    assert.deepEqual(readdirSync(folder).sort(), ['config.json', 'model.safetensors']);
    assert.deepEqual([...second.asked], []);
  });

  const shards = ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors'];
  const index = JSON.stringify({ weight_map: { a: shards[0], b: shards[1], c: shards[0] } });
  for (const [what, weights, more, wanted] of [
    [
      'the index and its shards',
      { 'model.safetensors.index.json': index, [shards[0]!]: 'x', [shards[1]!]: 'y' },
      { 'consolidated.safetensors': 'z', 'model-00003-of-00003.safetensors': 'z' },
      ['model.safetensors.index.json', ...shards],
    ],
    [
      'one file',
      { 'model.safetensors': 'x' },
      { 'model.fp16.safetensors': 'z', 'consolidated.safetensors': 'z' },
      ['model.safetensors'],
    ],
    [
      'one file before an index',
      { 'model.safetensors': 'x' },
      { 'model.safetensors.index.json': index },
      ['model.safetensors'],
    ],
  ] as const) {
    it(`asks for ${what} and the small files`, async () => {
      const { fetch, asked } = hub({ files: { ...small, ...unread, ...weights, ...more } });
      const folder = await resolveModelFolder('org/name', { cacheDir: newFolder(), fetch });
      assert.deepEqual([...asked].sort(), [...Object.keys(small), ...wanted].sort());
      for (const [name, text] of Object.entries(small)) assert.equal(readFileSync(join(folder, name), 'utf8'), text);
    });
  }

  it('is fetched again after an interruption', async () => {
    const cacheDir = newFolder();
    const { fetch } = hub({ files: model(), broken: 'model.safetensors' });
    await assert.rejects(
      resolveModelFolder('org/name', { cacheDir, fetch }),
      /^Error: org\/name: .*fetching it from the Hub failed/,
    );
    using device = openDevice('cpu');
    using loaded = await loadModel('org/name', { device, cacheDir, fetch });
    assert.ok(loaded.numParameters() > 0);
  });

  for (const [what, files, message] of [
    ['no config', { 'model.safetensors': 'x' }, /org\/name: has no config\.json on the Hub at main/],
    [
      'PyTorch alone',
      { ...small, 'pytorch_model.bin': 'x' },
      /has neither .* pytorch_model\.bin is in PyTorch's format/,
    ],
    ['shards without index', { ...small, [shards[0]!]: 'x' }, /is there without model\.safetensors\.index\.json/],
    [
      'an index of what is not there',
      { ...small, 'model.safetensors.index.json': index },
      /names "model-00001-of-00002\.safetensors", which is not on the Hub/,
    ],
    [
      'an index that leads out',
      { ...small, 'model.safetensors.index.json': '{"weight_map":{"a":"../../x"}}' },
      /"\.\.\/\.\.\/x" is not the name of a file/,
    ],
  ] as [string, Record<string, string>, RegExp][]) {
    it(`${what}: says so`, async () => {
      const { fetch } = hub({ files });
      await assert.rejects(resolveModelFolder('org/name', { cacheDir: newFolder(), fetch }), message);
    });
  }
});

describe('names', () => {
  for (const path of [
    './gpt2',
    '../gpt2',
    'org/..',
    'org/.',
    '/org/name',
    'gpt2',
    '~/name',
    'org/name/more',
    'org\\name',
    '-org/name',
    'org/-name',
    'org/a--b',
    'org/a..b',
    'org/name.git',
    '.org/name',
    'org/name.',
    `org/${'x'.repeat(97)}`,
    'org/na me',
    'ørg/name',
    'org/',
  ]) {
    it(`'${path.slice(0, 20)}' is a path, and nobody is asked`, async () => {
      const { fetch, requests } = hub({ files: model() });
      assert.equal(await resolveModelFolder(path, { cacheDir: newFolder(), fetch }), path);
      assert.deepEqual(requests, []);
      await assert.rejects(loadModel(path, { fetch }), /config\.json: cannot be read: there is no folder/);
    });
  }

  for (const name of ['org/name', 'Qwen/Qwen2.5-0.5B', 'a/b', '01-ai/Yi-6B', 'org_1/na.me_2-x']) {
    it(`'${name}' is a name on the Hub`, async () => {
      const { fetch, requests } = hub({ files: model() });
      await resolveModelFolder(name, { cacheDir: newFolder(), fetch });
      assert.ok(requests[0]!.includes(`/api/models/${name}/revision/main`), requests[0]);
    });
  }

  it('a folder that is there is a path', async () => {
    assert.equal(await resolveModelFolder(parity('llama')), parity('llama'));
  });
});

describe('a Hub that is not to be believed', () => {
  const filesUnder = (folder: string) =>
    readdirSync(folder, { recursive: true, withFileTypes: true })
      .filter((entry) => !entry.isDirectory())
      .map((entry) => relative(folder, join(entry.parentPath, entry.name)));

  for (const [what, played] of [
    ['a commit that leads out', { commit: '../../../../escaped' }],
    ['a branch for a commit', { commit: 'main' }],
    ['a number for a commit', { commit: 7 }],
    ['no commit', { commit: null }],
    ['a commit in capitals', { commit: sha.toUpperCase() }],
    ['an id that leads out', { id: '../../../../escaped' }],
    ['an id of 39 digits', { id: 'a'.repeat(39) }],
    ['an id of an object', { id: { a: 1 } }],
  ] as [string, Partial<Played>][]) {
    it(`${what} is refused, and no file written`, async () => {
      const base = newFolder();
      const { fetch } = hub({ files: model(), ...played });
      await assert.rejects(
        resolveModelFolder('org/name', { cacheDir: join(base, 'a/b/c/cache'), fetch }),
        /^Error: org\/name: /,
      );
      assert.deepEqual(filesUnder(base), []);
    });
  }
});

describe('the access token', () => {
  const secret = 'hf_SECRET';

  it('goes to the Hub without the line end of its file', async () => {
    const { fetch, requests } = hub({ files: model() });
    await resolveModelFolder('org/name', { cacheDir: newFolder(), fetch, accessToken: `${secret}\n` });
    assert.ok(
      requests.every((request) => request.endsWith(` Bearer ${secret}`)),
      requests.join('\n'),
    );
  });

  for (const [what, accessToken, played] of [
    ['with a line end in it', `${secret}\nx`, {}],
    ['with a letter of no header', `${secret}é`, {}],
    ['that is repeated in a refusal', secret, { status: 401 }],
    ['where the model is gated', secret, { status: 403 }],
    ['where the model is not there', secret, { status: 404 }],
    ['where the Hub fails', secret, { status: 500 }],
  ] as [string, string, Partial<Played>][]) {
    it(`${what} stands in no message`, async () => {
      const { fetch } = hub({ files: model(), ...played });
      await assert.rejects(
        resolveModelFolder('org/name', { cacheDir: newFolder(), fetch, accessToken }),
        (error: Error) => {
          assert.match(error.message, /^org\/name: /);
          for (let each: unknown = error; each instanceof Error; each = each.cause) {
            assert.ok(!`${each.stack}${JSON.stringify(each)}`.includes(secret), 'the token is told');
          }
          return true;
        },
      );
    });
  }
});
