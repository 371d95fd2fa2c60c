// What a run goes on from: its files by content, its machine, a checkpoint that is whole, a step that is carried.
import assert from 'node:assert/strict';
import { cp, mkdir, readdir, readFile, rename, rm, truncate, utimes, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { crc32 } from 'node:zlib';
import type { Decoder, RunConfigInput, RunWarning } from '../../lib/index.ts';
import { requireSameMachine } from '../../lib/train/continuation.ts';
import type { Machine, RunState } from '../../lib/train/run_state.ts';
import { linesOf, modelOf, newFolder, run, stepsIn, textFile, tinyModelFolder } from '../support/runs.ts';

type Options = Parameters<typeof run>[1];
const english = 'The quick brown fox jumps over the lazy dog.\n'.repeat(30);
const checkpoint = { everySteps: 2 };

/** A model's folder with a tokenizer; one weight is multiplied by `factor`. */
async function modelFolder(factor = 1): Promise<string> {
  const change = async (model: Decoder) => {
    const weight = model.namedParameters().get('model.layers.1.mlp.down_proj.weight')!;
    const values = await weight.toFloat32();
    values[5]! *= factor;
    weight.write(values);
  };
  return await tinyModelFolder({ vocab_size: 1024 }, { tokenizerFrom: 'test/fixtures/tokenizer', change });
}

describe('a run goes on only from what it began with', () => {
  it('not from another text under the same path; from the same one at another time or place', async () => {
    const text = textFile(english);
    const common = { data: { files: [text] }, checkpoint, maxSteps: 6 };
    const whole = await run(common);
    const outDir = newFolder();
    await run({ ...common, maxSteps: 4, outDir });
    await writeFile(text, english.replaceAll('fox', 'cat'));
    const before = await stepsIn(outDir);
    await assert.rejects(
      run({ ...common, outDir }, { resume: true }),
      new RegExp(`the data ${text} is not what it began`),
    );
    assert.deepEqual(await stepsIn(outDir), before);
    await writeFile(text, english);
    await utimes(text, 1, 1);
    const elsewhere = textFile(english);
    await run({ ...common, data: { files: [elsewhere] }, outDir }, { resume: true });
    assert.deepEqual(await linesOf(outDir), await linesOf(whole.outDir));
  });

  it('from a checkpoint that is older than an option: with its default, not with another value', async () => {
    const common = { data: { files: [textFile(english)] }, checkpoint };
    const whole = await run({ ...common, maxSteps: 4 });
    const outDir = newFolder();
    await run({ ...common, maxSteps: 2, outDir });
    const path = join(outDir, 'checkpoints', 'step-000002', 'state.json');
    const { crc32: _, ...state } = JSON.parse(await readFile(path, 'utf8'));
    delete state.config.slots;
    delete state.config.clipping;
    delete state.config.optimizer.stateBits;
    await writeFile(path, JSON.stringify({ ...state, crc32: crc32(JSON.stringify(state)) }));
    const goOn = (options: Partial<RunConfigInput> = {}) =>
      run({ ...common, maxSteps: 4, outDir, ...options }, { resume: true });
    await assert.rejects(
      goOn({ recompute: 'segments', slots: 2, optimizer: { stateBits: 8 } }),
      /another .*optimizer\.stateBits.* recompute, slots;/,
    );
    await goOn();
    assert.deepEqual(await linesOf(outDir), await linesOf(whole.outDir));
  });

  it('from a checkpoint whose options and values have other names now', async () => {
    const builtin = { attention: 'builtin', matmul: 'builtin' } as const;
    const common = { data: { files: [textFile(english)] }, checkpoint, ...builtin };
    const whole = await run({ ...common, maxSteps: 4 });
    const outDir = newFolder();
    await run({ ...common, maxSteps: 2, outDir });
    const path = join(outDir, 'checkpoints', 'step-000002', 'state.json');
    const { crc32: _, ...state } = JSON.parse(await readFile(path, 'utf8'));
    const { matmul, tuneMatmul, ...others } = state.config;
    state.config = { ...others, attention: 'own', products: 'own', tuneProducts: tuneMatmul };
    await writeFile(path, JSON.stringify({ ...state, crc32: crc32(JSON.stringify(state)) }));
    const goOn = (options: Partial<RunConfigInput> = {}) =>
      run({ ...common, maxSteps: 4, outDir, ...options }, { resume: true });
    await assert.rejects(
      goOn({ attention: 'auto', matmul: 'auto' }),
      /belongs to a run with another attention, matmul;/,
    );
    await goOn();
    assert.deepEqual(await linesOf(outDir), await linesOf(whole.outDir));
  });

  it('from a machine whose attention has another name now', () => {
    const machineWith = (attention: string) => ({ target: { kind: 'cuda', attention }, name: 'GPU' }) as Machine;
    const goOn = (then: string, now: string) =>
      requireSameMachine({ machine: machineWith(then) } as RunState, machineWith(now), {
        outDir: 'runs/latest',
        allowOtherMachine: false,
        numRanks: 1,
      });
    assert.equal(goOn('own', 'builtin'), null);
    assert.throws(() => goOn('own', 'cudnn'), /"builtin".* cannot be continued exactly on .*"cudnn"/);
  });

  it('not with other texts to validate on', async () => {
    const held = textFile('zyx wvu '.repeat(30));
    const data = { files: [textFile(english)], validation: { files: [held] } };
    const common = { data, checkpoint, evaluation: { everySteps: 2 }, outDir: newFolder() };
    await run({ ...common, maxSteps: 2 });
    await writeFile(held, 'other text '.repeat(30));
    await assert.rejects(
      run({ ...common, maxSteps: 4 }, { resume: true }),
      new RegExp(`the validation data ${held} is not`),
    );
  });

  for (const [name, lora] of Object.entries({ 'all parameters': undefined, adapters: { rank: 2 } })) {
    it(`not over another model or with another tokenizer: ${name}`, async () => {
      const path = await modelFolder();
      const files = [textFile(english)];
      const common = { model: { path }, tokenizer: undefined, data: { files }, lora, checkpoint };
      const whole = await run({ ...common, maxSteps: 4 });
      const outDir = newFolder();
      await run({ ...common, maxSteps: 2, outDir });
      const goOn = () => run({ ...common, maxSteps: 4, outDir }, { resume: true });

      const weights = join(path, 'model.safetensors');
      const own = await readFile(weights);
      await cp(join(await modelFolder(-1), 'model.safetensors'), weights);
      await assert.rejects(goOn(), new RegExp(`the model ${path} \\(its weights\\) is not what it began with`));
      await writeFile(weights, own);

      const config = await readFile(join(path, 'config.json'), 'utf8');
      await writeFile(join(path, 'config.json'), config.replace('"rope_theta": 10000', '"rope_theta": 20000'));
      await assert.rejects(goOn(), new RegExp(`the model ${path} \\(config.json\\) is not what it began with`));
      await writeFile(join(path, 'config.json'), config);

      const tokenizer = await readFile(join(path, 'tokenizer.json'), 'utf8');
      await writeFile(join(path, 'tokenizer.json'), `${tokenizer}\n`);
      await assert.rejects(goOn(), /the tokenizer .*tokenizer\.json \(tokenizer\.json\) is not what it began with/);
      await writeFile(join(path, 'tokenizer.json'), tokenizer);

      const moved = `${path}-moved`;
      await rename(path, moved);
      await run({ ...common, model: { path: moved }, maxSteps: 4, outDir }, { resume: true });
      assert.deepEqual(await linesOf(outDir), await linesOf(whole.outDir));
    });
  }

  it('not from a damaged checkpoint, and says which one is whole', async () => {
    const common = { data: { files: [textFile(english)] }, checkpoint, outDir: newFolder() };
    await run({ ...common, maxSteps: 4 });
    const kept = newFolder();
    await cp(common.outDir, kept, { recursive: true });
    const goOn = (outDir: string) => run({ ...common, maxSteps: 6, outDir }, { resume: true });
    const damages: [string, (path: string) => Promise<void>][] = [
      ['model.safetensors', (path) => flip(path)],
      ['optimizer.safetensors', (path) => flip(path)],
      ['optimizer.safetensors', (path) => truncate(path, 1000)],
      ['config.json', (path) => writeFile(path, '{}')],
      ['model.safetensors', (path) => rm(path)],
      ['state.json', (path) => rm(path)],
      ['state.json', (path) => writeFile(path, '')],
      [
        'state.json',
        async (path) =>
          writeFile(path, (await readFile(path, 'utf8')).replace('"mlpChunkSize": 24', '"mlpChunkSize": 25')),
      ],
    ];
    for (const [name, damage] of damages) {
      const outDir = newFolder();
      await cp(kept, outDir, { recursive: true });
      const path = join(outDir, 'checkpoints', 'step-000004', name);
      await damage(path);
      await assert.rejects(goOn(outDir), (error: Error) => {
        assert.equal(error.name, 'CheckpointError');
        assert.ok(error.message.startsWith(`${path}: is damaged: `), error.message);
        assert.match(error.message, /step-000002 is whole, and the run goes on from it once .*step-000004 is removed$/);
        return true;
      });
      await rm(dirname(path), { recursive: true });
      assert.equal((await goOn(outDir)).metrics.length, 6);
    }
    await flip(join(kept, 'checkpoints', 'step-000002', 'model.safetensors'));
    await flip(join(kept, 'checkpoints', 'step-000004', 'model.safetensors'));
    await assert.rejects(goOn(kept), /no earlier checkpoint is whole$/);
  });
});

/** Changes one bit in the middle of a file. */
async function flip(path: string): Promise<void> {
  const bytes = await readFile(path);
  bytes[bytes.length >> 1]! ^= 1;
  await writeFile(path, bytes);
}

describe('a run goes on elsewhere', () => {
  it('with as many threads as before by default; with another number only if it is allowed, with a warning', async () => {
    const common = { device: 'cpu', data: { files: [textFile(english)] }, checkpoint, outDir: newFolder() };
    await run({ ...common, threads: 1, maxSteps: 2 });
    await run({ ...common, threads: undefined, maxSteps: 4 }, { resume: true });
    const whole = await run({ ...common, threads: 1, maxSteps: 4, outDir: newFolder() });
    assert.deepEqual(await linesOf(common.outDir), await linesOf(whole.outDir));

    await assert.rejects(run({ ...common, threads: 2, maxSteps: 6 }, { resume: true }), /--allow-other-machine/);
    const warnings: RunWarning[] = [];
    const onWarning = (warning: RunWarning) => warnings.push(warning);
    const allowed = { resume: true, allowOtherMachine: true, onWarning };
    const { metrics } = await run({ ...common, threads: 2, maxSteps: 6 }, allowed);
    assert.equal(metrics.length, 6);
    assert.deepEqual(
      warnings.map(({ code }) => code),
      ['inexact'],
    );
    assert.match(warnings[0]!.message, /computed on .*"threads":1.* goes on on .*"threads":2.*: its losses are not/);
  });
});

describe("a step's number is carried", () => {
  const changes: Record<string, (path: string, text: string) => Promise<void>> = {
    missing: (path) => rm(path),
    cut: (path, text) => writeFile(path, text.split('\n').slice(0, 2).join('\n')),
    doubled: (path, text) => writeFile(path, text + text),
    'without an end of line': (path, text) => writeFile(path, text.trimEnd()),
  };
  for (const [name, change] of Object.entries(changes)) {
    it(`where metrics.jsonl is ${name}`, async () => {
      const common = { data: { files: [textFile(english)] }, checkpoint: { everySteps: 50 } };
      const outDir = newFolder();
      const stopAfter = (last: number): Options => {
        const stop = new AbortController();
        return { resume: true, signal: stop.signal, onStep: ({ step }) => step === last && stop.abort() };
      };
      await run({ ...common, maxSteps: 100, outDir }, stopAfter(4));
      const path = join(outDir, 'metrics.jsonl');
      await change(path, await readFile(path, 'utf8'));
      const second = await run({ ...common, maxSteps: 100, outDir }, stopAfter(9));
      const last = second.metrics.at(-1)!.step;
      const name = `step-${String(last).padStart(6, '0')}`;
      assert.equal((await stepsIn(outDir)).at(-1), name);
      const folder = join(outDir, 'checkpoints', name);
      assert.equal(JSON.parse(await readFile(join(folder, 'state.json'), 'utf8')).step, last);
      // The cosine ends elsewhere, so the same length is asked for.
      const stop = new AbortController();
      const onStep = ({ step }: { step: number }) => step === last - 1 && stop.abort();
      const whole = await run({ ...common, maxSteps: 100 }, { signal: stop.signal, onStep });
      assert.equal(whole.metrics.length, last);
      assert.ok((await modelOf(folder)).equals(await modelOf(whole.outDir)), 'its own weights');
      const steps = second.metrics.map(({ step }) => step);
      assert.deepEqual(
        steps,
        [...new Set(steps)].sort((a, b) => a - b),
      );
      const end = await run({ ...common, maxSteps: last + 2, outDir }, { resume: true });
      assert.equal(end.finished, true);
    });
  }
});

describe('where a file cannot be written', () => {
  it('at the end, a checkpoint is: nothing is computed again', async () => {
    const common = { data: { files: [textFile(english)] }, maxSteps: 3, outDir: newFolder() };
    const whole = await run({ ...common, outDir: newFolder() });
    const warnings: RunWarning[] = [];
    const inTheWay = join(common.outDir, 'model.safetensors');
    await assert.rejects(
      run(common, {
        onStep: ({ step }) => step === 1 && mkdir(inTheWay),
        onWarning: (warning) => warnings.push(warning),
      }),
      /EISDIR.*model\.safetensors/,
    );
    assert.deepEqual(
      warnings.map(({ code, message }) => [code, /step 3 was saved/.test(message)]),
      [['saved', true]],
    );
    assert.deepEqual(await stepsIn(common.outDir), ['step-000003']);
    const names = await readdir(common.outDir);
    assert.deepEqual(names.sort(), [
      'checkpoints',
      'config.json',
      'config.yaml',
      'data',
      'metrics.jsonl',
      'model.safetensors',
      'report.html',
      'run.json',
    ]);
    await rm(inTheWay, { recursive: true });
    const steps: number[] = [];
    const again = await run(common, { resume: true, onStep: ({ step }) => steps.push(step) });
    assert.deepEqual([steps, again.finished], [[], true]);
    assert.ok((await modelOf(common.outDir)).equals(await modelOf(whole.outDir)));
  });
});
