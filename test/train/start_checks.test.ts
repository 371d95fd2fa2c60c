// What a run refuses before its first step.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { cp, mkdir, readdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  AdamW,
  addLora,
  Decoder,
  decoderConfig,
  NonFiniteError,
  openDevice,
  parseConfig,
  type RunConfigInput,
  type RunWarning,
  saveAdapter,
  saveModel,
} from '../../lib/index.ts';
import { requireSpace } from '../../lib/train/start_checks.ts';
import { commandLine } from '../support/command.ts';
import { openTestDevice } from '../support/devices.ts';
import { modelOf, newFolder, run, textFile, tinyLlama, tinyModelFolder, tinyRun } from '../support/runs.ts';

/** The run is refused with this message, before a step. */
async function refuses(options: Partial<RunConfigInput>, message: RegExp): Promise<void> {
  let started = false;
  const attempt = async () => run(options, { onStart: () => (started = true) });
  await assert.rejects(attempt(), message);
  assert.equal(started, false);
}

describe('at the start a run refuses', () => {
  it('to validate on nothing, and to continue no prompt', async () => {
    await refuses({ evaluation: { everySteps: 6 } }, /evaluation\.everySteps: needs data\.validation/);
    await refuses({ samples: { everySteps: 6 } }, /samples\.everySteps: needs samples\.prompts/);
  });

  it('a prompt that has no tokens, or ids that the model has not', async () => {
    await refuses(
      { samples: { everySteps: 6, prompts: ['a', ''] } },
      /^Error: samples\.prompts\[1\]: "" has no tokens/,
    );
    const model = { config: { ...tinyLlama, vocab_size: 100 } };
    await refuses({ model, samples: { everySteps: 6, prompts: ['zoo'] } }, /vocabulary 100/);
  });

  it('to write over what it reads', async () => {
    const path = await tinyModelFolder();
    const before = await readFile(join(path, 'model.safetensors'));
    const link = join(newFolder(), 'link');
    await symlink(path, link);
    for (const outDir of [path, link, `${path}/../${path.split('/').at(-1)}/`]) {
      await refuses({ model: { path }, outDir }, /outDir: .* would be written over: model\.path \(.*\) lies there/);
    }
    const tokenizer = join(path, 'tokenizer.json');
    await cp('test/fixtures/tokenizer/tokenizer.json', tokenizer);
    const wide = { config: { ...tinyLlama, vocab_size: 1024 } };
    await refuses({ model: wide, tokenizer, outDir: path }, /would be written over: tokenizer \(/);
    const outDir = newFolder();
    const ofData = /would be written over: the run writes metrics\.jsonl, which data\.files/;
    await writeFile(join(outDir, 'metrics.jsonl'), '{"text": "mine"}\n');
    for (const named of ['metrics.jsonl', '*.jsonl', '']) {
      await refuses({ data: { files: [join(outDir, named)] }, outDir }, ofData);
    }
    const inside = join(outDir, 'checkpoints', 'step-000001');
    await cp(path, inside, { recursive: true });
    await refuses({ model: { path: inside }, outDir }, /model\.path \(.*\) lies in it/);
    const samples = join(outDir, 'samples.jsonl');
    await writeFile(samples, '{"text":"some text to train on"}\n');
    await refuses({ data: { files: [samples] }, outDir }, /the run writes samples\.jsonl, which data\.files names/);
    assert.ok((await readFile(join(path, 'model.safetensors'))).equals(before));
    assert.ok(!existsSync(join(path, 'metrics.jsonl')));
  });

  it('to save an adapter beside an earlier model, or a model beside an earlier adapter', async () => {
    const lora = { rank: 2 };
    const [ofModel, ofAdapter] = [await tinyModelFolder(), newFolder()];
    await refuses(
      { outDir: ofModel, lora },
      /holds model\.safetensors of an earlier run, and this run saves an adapter/,
    );
    await run({ outDir: ofAdapter, lora, maxSteps: 1 });
    await refuses({ outDir: ofAdapter }, /holds adapter_config\.json of an earlier run, and this run saves a model/);
    await run({ outDir: ofAdapter, lora, maxSteps: 1 });
    using device = openTestDevice();
    using model = new Decoder(decoderConfig(tinyLlama), { device }).initialize(1);
    await assert.rejects(saveModel(model, ofAdapter), /saveModel: .*holds adapter_config\.json/);
    addLora(model, lora);
    await assert.rejects(saveAdapter(model, ofModel), /saveAdapter: .*holds model\.safetensors/);
  });

  it('nothing in a folder that is used again: of the earlier run no file is left that a reader would take', async () => {
    for (const lora of [undefined, { rank: 2 }]) {
      const outDir = newFolder();
      const kept = ['notes.txt', 'model-card.md'];
      await run({ outDir, lora, maxSteps: 1 });
      const shards = lora ? [] : ['model-00001-of-00002.safetensors', 'model-00002-of-00002.safetensors'];
      const stale = ['chat_template.jinja', 'tokenizer.json', 'samples.jsonl', ...shards];
      for (const name of [...stale, ...kept]) await writeFile(join(outDir, name), 'x');
      await run({ outDir, lora, maxSteps: 1 });
      const left = await readdir(outDir);
      assert.deepEqual(
        [...stale, ...kept].filter((name) => left.includes(name)),
        kept,
      );
    }
  });

  it('a folder where a file goes, a file where a folder goes, and a file as its folder', async () => {
    for (const name of ['model.safetensors', 'metrics.jsonl', 'config.yaml', 'config.json']) {
      const outDir = newFolder();
      await mkdir(join(outDir, name));
      await refuses({ outDir }, new RegExp(`${outDir}/${name}: is a folder`));
      assert.deepEqual(await readdir(outDir), [name]);
    }
    const outDir = newFolder();
    await writeFile(join(outDir, 'checkpoints'), '');
    await refuses({ outDir }, new RegExp(`${outDir}/checkpoints: is a file`));
    const file = textFile('mine');
    await refuses({ outDir: file }, new RegExp(`outDir: ${file} is a file, and a folder is to be written there`));
    await refuses({ outDir: join(file, 'in') }, new RegExp(`outDir: ${file}/in cannot be made: ENOTDIR`));
    assert.equal(await readFile(file, 'utf8'), 'mine');
  });

  it('a warm-up of more steps than the run has, from epochs too, and leaves no model', async () => {
    const schedule = { warmupSteps: 17 };
    for (const [length, steps] of [
      [{ maxSteps: 4 }, 4],
      [{ epochs: 1 }, 16],
      [{ epochs: 9, maxSteps: 16 }, 16],
    ] as const) {
      const outDir = newFolder();
      await refuses(
        { ...length, schedule, outDir },
        new RegExp(`^RangeError: schedule\\.warmupSteps 17 is more than the run's ${steps} steps`),
      );
      assert.equal(existsSync(join(outDir, 'metrics.jsonl')), false);
    }
    assert.equal((await run({ maxSteps: 2, schedule: { type: 'constant', warmupSteps: 2 } })).metrics.length, 2);
  });

  it('documents of several lengths in one sequence beyond the reach of dynamic rope', async () => {
    const rope = { rope_scaling: { rope_type: 'dynamic', factor: 2 }, max_position_embeddings: 128 };
    const data = { files: ['first '.repeat(20), 'second '.repeat(20)].map(textFile) };
    const model = { config: { ...tinyLlama, ...rope } };
    await refuses(
      { model, data, sequenceLength: 512 },
      /data\.files: packed sequences have 320 rows, and dynamic rope/,
    );
    const alone = { model, data: { ...data, packing: false }, sequenceLength: 512, maxSteps: 1 };
    await run(alone);
    await refuses({ ...alone, batchSize: 2 }, /^RangeError: batchSize: 2 sequences of 119 to 139 rows \(data\.files\)/);
    await refuses(
      {
        ...alone,
        data: { files: [data.files[1]!], validation: { files: data.files }, packing: false },
        batchSize: 2,
        evaluation: { everySteps: 1 },
      },
      /\(data\.validation\) would share the frequencies/,
    );
    await run({ ...alone, accumulationSteps: 2 });
    await run({ ...alone, sequenceLength: 128, batchSize: 2 }); // within reach
    await run({ ...alone, data: { files: [data.files[1]!], packing: false }, batchSize: 2 });
  });

  it('checkpoints that the disk has no room for', async () => {
    using device = openDevice('meta');
    using model = new Decoder(decoderConfig({ ...tinyLlama, hidden_size: 2 ** 20, vocab_size: 2 ** 23 }), { device });
    using optimizer = new AdamW(model.trainableParameters());
    const config = parseConfig(tinyRun({ checkpoint: { everySteps: 1 } }));
    const more = (count: number) => requireSpace(config, model, optimizer, { present: 0, more: count });
    await assert.rejects(more(0), /the disk has .* free, and the run writes 88\.00 TiB: the model of 88\.00 TiB$/);
    await assert.rejects(
      more(9),
      /writes 616\.01 TiB: the model of 88\.00 TiB, and 2 checkpoints of 264\.01 TiB each$/,
    );
  });
});

describe('a run warns', () => {
  it('of texts that are held back for validation without evaluation', async () => {
    const warnings: RunWarning[] = [];
    const data = { files: [textFile('some text '.repeat(50))], validation: { fraction: 0.3 } };
    await run({ data, maxSteps: 1 }, { onWarning: (warning) => warnings.push(warning) });
    assert.deepEqual(
      warnings.map(({ code }) => code),
      ['unused-validation'],
    );
  });
});

describe('a file that grows too large for its disk', () => {
  for (const [what, kilobytes, everySteps, file] of [
    ["the last model's", 100, undefined, 'model.safetensors'],
    ["a checkpoint's", 200, 2, 'optimizer.safetensors'],
  ] as const) {
    it(`is ${what}: an error with its path, and no file left`, async () => {
      const outDir = newFolder();
      const path = join(newFolder(), 'run.yaml');
      await writeFile(path, JSON.stringify(tinyRun({ maxSteps: 4, outDir, checkpoint: { everySteps } })));
      const args = commandLine('train', '--config', path);
      const script = `ulimit -f ${kilobytes}; exec "$0" "$@"`;
      const { status, stderr } = spawnSync('bash', ['-c', script, process.execPath, ...args], { encoding: 'utf8' });
      assert.equal(status, 1, stderr);
      assert.match(stderr, new RegExp(`${outDir}.*${file}: cannot be written: EFBIG`));
      const left = (await readdir(outDir, { recursive: true })).filter((name) => /tmp|\.lock|\.new|step-/.test(name));
      assert.deepEqual(left, []);
    });
  }
});

describe('steps that are not finite', () => {
  it('are skipped up to nine in a row; the tenth ends the run, with a checkpoint', async () => {
    const path = await tinyModelFolder();
    using device = openTestDevice();
    {
      using model = new Decoder(decoderConfig(tinyLlama), { device }).initialize(1);
      const norm = model.namedParameters().get('model.norm.weight')!;
      norm.write(new Float32Array(norm.size).fill(Number.NaN));
      await saveModel(model, path);
    }
    const skipped: string[] = [];
    const warnings: RunWarning[] = [];
    const common = { model: { path }, nonFinite: 'skip', outDir: newFolder() } as const;
    const onWarning = (warning: RunWarning) => warnings.push(warning);
    await assert.rejects(
      run({ ...common, maxSteps: 16 }, { onSkip: (message) => skipped.push(message), onWarning }),
      (error: Error) =>
        error instanceof NonFiniteError &&
        /^step 10: the loss is NaN.*10 steps in a row were skipped/.test(error.message),
    );
    assert.equal(skipped.length, 11, 'the next step was under way');
    assert.deepEqual(
      warnings.map(({ code }) => code),
      ['saved'],
    );
    assert.deepEqual(await readdir(join(common.outDir, 'checkpoints')), ['step-000011']);
    const lines = (await readFile(join(common.outDir, 'metrics.jsonl'), 'utf8')).trim().split('\n');
    assert.equal(lines.length, 11);
    const norm = (await modelOf(join(common.outDir, 'checkpoints', 'step-000011'))).equals(await modelOf(path));
    assert.ok(norm, 'nothing was changed by them');
    assert.equal((await run({ ...common, maxSteps: 9, outDir: newFolder() })).metrics.length, 9);
  });
});
