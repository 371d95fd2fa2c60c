// A run's configuration: defaults, mistakes and what is said of them, --set, sizes in bytes.
import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ConfigError, parseConfig } from '../../lib/train/config.ts';
import { readRunConfig } from '../../lib/train/config_file.ts';

const least = { model: { path: 'model' }, data: { files: ['a.txt'] }, sequenceLength: 8 };

function fails(input: unknown, ...messages: RegExp[]): void {
  assert.throws(
    () => parseConfig(input, 'run.yaml'),
    (error: Error) => {
      assert.ok(error instanceof ConfigError, String(error));
      for (const message of [/^run\.yaml: /, ...messages]) assert.match(error.message, message);
      return true;
    },
  );
}

describe('configuration', () => {
  it('has defaults for all but model, data and sequence length', () => {
    assert.deepEqual(parseConfig(least), {
      ...least,
      data: { ...least.data, packing: 'auto', trainOnPrompts: false, trainOnLastAnswer: false },
      batchSize: 1,
      accumulationSteps: 1,
      optimizer: {
        learningRate: 3e-4,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weightDecay: 0.1,
        stateBits: 32,
        inBackward: false,
      },
      schedule: { type: 'cosine', warmupSteps: 0, minLearningRate: 0 },
      maxGradNorm: 1,
      masterWeights: true,
      dtype: 'float32',
      gradientDtype: 'float32',
      device: 'auto',
      attention: 'auto',
      matmul: 'auto',
      tuneMatmul: true,
      deterministic: false,
      chunkSizes: { mlp: 'auto', loss: 'auto' },
      mlpSave: 'auto',
      recompute: 'auto',
      slots: 'auto',
      keepAttention: 'auto',
      attentionHeadGroups: 'auto',
      offloadedInputs: 'auto',
      evaluation: {},
      samples: { prompts: [], maxTokens: 64, temperature: 0.8 },
      checkpoint: { keepLast: 2, keepBest: true },
      nonFinite: 'stop',
      parallel: { shard: 'none', sequence: 1 },
      seed: 0,
      tensorboard: false,
      outDir: 'runs/latest',
    });
  });

  it('keeps the defaults beside what is given', () => {
    const { optimizer, chunkSizes } = parseConfig({
      ...least,
      optimizer: { weightDecay: 0 },
      chunkSizes: { mlp: 512 },
    });
    assert.deepEqual(optimizer, {
      learningRate: 3e-4,
      beta1: 0.9,
      beta2: 0.95,
      eps: 1e-8,
      weightDecay: 0,
      stateBits: 32,
      inBackward: false,
    });
    assert.deepEqual(chunkSizes, { mlp: 512, loss: 'auto' });
  });

  it('names every option that is missing', () => fails({}, /model: /, /data: /, /sequenceLength: /));

  it('suggests an option near an unknown one, else lists all', () => {
    fails({ ...least, optimiser: {} }, /optimiser: is not an option; did you mean optimizer\?/);
    fails({ ...least, sedd: 1 }, /sedd: is not an option; did you mean seed\?/);
    fails(
      { ...least, optimizer: { learningrate: 1 } },
      /optimizer\.learningrate: is not an option; did you mean learningRate\?/,
    );
    fails({ ...least, optimizer: { lr: 1 } }, /optimizer\.lr: is not an option; options are learningRate, beta1/);
    fails({ ...least, xyzzy: 1, chunkSizes: { mpl: 8 } }, /xyzzy: .*options are model, /, /mpl: .*did you mean mlp\?/);
  });

  it('names the option and the value that had another name before', () => {
    fails({ ...least, products: 'auto' }, /products: is named matmul now/);
    fails({ ...least, tuneProducts: false }, /tuneProducts: is named tuneMatmul now/);
    fails({ ...least, attention: 'own' }, /attention: 'own' is named 'builtin' now/);
    fails({ ...least, matmul: 'own' }, /matmul: 'own' is named 'builtin' now/);
    fails({ ...least, matmul: 'cudnn' }, /matmul: .*"auto"\|"builtin"/);
  });

  const mistakes: [Record<string, unknown>, RegExp][] = [
    [{ sequenceLength: 0 }, /sequenceLength: /],
    [
      { data: { files: ['a'], trainOnPrompts: true, trainOnLastAnswer: true } },
      /data\.trainOnLastAnswer: .*trainOnPrompts/,
    ],
    [
      { data: { files: ['a'], templateVariables: { messages: [] } } },
      /data\.templateVariables: must not have messages/,
    ],
    [{ data: { files: ['a'], templateDate: '2024-02-30' } }, /data\.templateDate: /],
    [{ sequenceLength: 1.5 }, /sequenceLength: /],
    [{ data: { files: [] } }, /data\.files: /],
    [{ data: { files: 'a.txt' } }, /data\.files: .*expected array/],
    [{ model: { path: 'a', config: {} } }, /model: must be either \{ path/],
    [{ model: 'a' }, /model: must be either \{ path/],
    [{ optimizer: { beta1: 1 } }, /optimizer\.beta1: /],
    [{ optimizer: { learningRate: Number.NaN } }, /optimizer\.learningRate: /],
    [{ schedule: { type: 'step' } }, /schedule\.type: .*"cosine"\|"linear"\|"constant"/],
    [{ device: 'gpu' }, /device: must be 'auto', 'cpu', 'cuda' or 'cuda:N'/],
    [{ dtype: 'float16' }, /dtype: /],
    [{ chunkSizes: { mlp: 'all' } }, /chunkSizes\.mlp: must be 'auto' or a positive integer/],
    [{ chunkSizes: { loss: 0 } }, /chunkSizes\.loss: /],
    [{ slots: 8 }, /slots: are those of recompute: 'segments'/],
    [{ keepAttention: true }, /keepAttention: is that of recompute: 'segments'/],
    [{ recompute: 'segments', keepAttention: 'some' }, /keepAttention: must be 'auto', true or false/],
    [{ recompute: 'segments', slots: 'few' }, /slots: must be 'auto' or a positive integer/],
    [{ attentionHeadGroups: 'few' }, /attentionHeadGroups: must be 'auto' or a positive integer/],
    [{ offloadedInputs: 8 }, /offloadedInputs: are those of recompute: 'attention', 'layer' and 'segments'/],
    [{ recompute: 'none', offloadedInputs: 8 }, /offloadedInputs: are those of recompute: 'attention', 'layer' and/],
    [{ recompute: 'layer', offloadedInputs: 8 }, /offloadedInputs: need hostMemoryLimit, which says how much/],
    [{ offloadedInputs: -1 }, /offloadedInputs: Too small/],
    [{ hostMemoryLimit: 'all' }, /hostMemoryLimit: must be a positive number of bytes or like '8GiB'/],
    [{ epochs: 0 }, /epochs: /],
    [{ seed: -1 }, /seed: /],
    [{ gradientDtype: 'bfloat16' }, /gradientDtype: 'bfloat16' needs dtype 'bfloat16'/],
    [
      { dtype: 'bfloat16', gradientDtype: 'bfloat16', accumulationSteps: 2 },
      /gradientDtype: 'bfloat16' is for one micro-batch a step: accumulationSteps must be 1/,
    ],
  ];
  for (const [mistake, message] of mistakes) {
    it(`refuses ${JSON.stringify(mistake)}`, () => fails({ ...least, ...mistake }, message));
  }
  it('refuses what is no mapping', () => {
    for (const input of [null, undefined, 'text', 3, []]) fails(input, /the whole: .*expected object/);
  });
});

describe('memoryLimit', () => {
  const sizes: [string | number, number][] = [
    ['8GiB', 8 * 2 ** 30],
    ['8 GiB', 8 * 2 ** 30],
    ['1.5GiB', 1.5 * 2 ** 30],
    ['8GB', 8e9],
    ['512MiB', 512 * 2 ** 20],
    ['3KB', 3000],
    ['2TiB', 2 * 2 ** 40],
    ['100B', 100],
    [4096, 4096],
  ];
  for (const [size, bytes] of sizes) {
    it(`${size} is ${bytes} bytes`, () =>
      assert.equal(parseConfig({ ...least, memoryLimit: size }).memoryLimit, bytes));
  }
  for (const size of ['8G', '8gib', '1024', '-1GiB', '1e3B', 'GiB', '', '1.GiB', ' 8GiB']) {
    it(`refuses '${size}'`, () =>
      fails({ ...least, memoryLimit: size }, /memoryLimit: must be a positive number of bytes or like '8GiB'/));
  }
  for (const size of ['0B', '0.2B', '99999999TiB', 0, -5]) {
    it(`refuses ${size}`, () => fails({ ...least, memoryLimit: size }, /memoryLimit: /));
  }
});

describe('configuration files', () => {
  let folder: string;
  let path: string;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'config-'));
    path = join(folder, 'run.yaml');
    await writeFile(path, 'model: { path: model }\ndata: { files: [a.txt] }\nsequenceLength: 8\nseed: 3\n');
  });
  after(() => rm(folder, { recursive: true }));

  async function contentFails(content: string, message: RegExp): Promise<void> {
    const bad = join(folder, 'bad.yaml');
    await writeFile(bad, content);
    await assert.rejects(readRunConfig(bad), (error: Error) => {
      assert.ok(error instanceof ConfigError && error.message.startsWith(`${bad}: `), String(error));
      assert.match(error.message, message);
      return true;
    });
  }

  it('reads YAML and JSON, also behind a byte order mark', async () => {
    assert.deepEqual(await readRunConfig(path), parseConfig({ ...least, seed: 3 }));
    const json = join(folder, 'run.json');
    await writeFile(json, JSON.stringify({ ...least, seed: 3 }));
    assert.deepEqual(await readRunConfig(json), parseConfig({ ...least, seed: 3 }));
    for (const [name, content] of [
      ['mark.json', JSON.stringify({ ...least, seed: 3 })],
      ['mark.yaml', await readFile(path, 'utf8')],
    ] as const) {
      await writeFile(join(folder, name), `\ufeff${content}`);
      assert.deepEqual(await readRunConfig(join(folder, name)), parseConfig({ ...least, seed: 3 }), name);
    }
  });

  it('names the file of every problem', async () => {
    await contentFails('model: [', /line 1/);
    await contentFails('', /is not a mapping of options/);
    await contentFails('- 1', /is not a mapping of options/);
    await contentFails('seed: x', /seed: .*expected number/);
    await assert.rejects(readRunConfig(join(folder, 'gone.yaml')), /gone\.yaml: ENOENT/);
  });

  it('--set goes over the file, in order, with values in YAML', async () => {
    const config = await readRunConfig(path, [
      'optimizer.learningRate=1e-3',
      'data.files=[b.txt, "c d.txt"]',
      'data.files.0=x=y.txt',
      'memoryLimit=1GiB',
      'seed=4',
      'seed=5',
    ]);
    assert.equal(config.optimizer.learningRate, 1e-3);
    assert.deepEqual(config.data.files, ['x=y.txt', 'c d.txt']);
    assert.equal(config.memoryLimit, 2 ** 30);
    assert.equal(config.seed, 5);
  });

  const wrong: [string, RegExp][] = [
    ['seed', /--set seed: must be key=value/],
    ['=3', /--set =3: must be key=value/],
    ['seed=[1', /--set seed=\[1: /],
    ['seed=', /seed: .*expected number, received null/],
    ['sede=1', /sede: is not an option; did you mean seed\?/],
    ['optimizer.lr=1', /optimizer\.lr: is not an option/],
    ['sequenceLength.a=1', /sequenceLength: .*expected number/],
  ];
  for (const [override, message] of wrong) {
    it(`--set ${override} is an error`, () =>
      assert.rejects(readRunConfig(path, [override]), (error: Error) => {
        assert.ok(error instanceof ConfigError, String(error));
        assert.match(error.message, message);
        return true;
      }));
  }

  it('--set cannot change a prototype', async () => {
    await readRunConfig(path, ['__proto__.reached=1', 'constructor.prototype.reached=1']).catch(() => {});
    assert.equal('reached' in {}, false);
  });
});
