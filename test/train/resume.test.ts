// Runs that stop anywhere and go on: losses bit for bit those of an uninterrupted run; checkpoints, validation, packed documents.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { existsSync, mkdirSync, rmdirSync, rmSync } from 'node:fs';
import { appendFile, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { decoderConfig, loadModel, type RunConfigInput, simulateStep } from '../../lib/index.ts';
import { startCommand } from '../support/command.ts';
import { openTestDevice, testTarget } from '../support/devices.ts';
import { linesOf, newFolder, run, stepsIn, textFile, tinyLlama, tinyRun } from '../support/runs.ts';

const text = textFile('The quick brown fox jumps over the lazy dog.\n'.repeat(23).slice(0, 1000));
const data = { files: [text] };

describe('a continued run', () => {
  for (const [name, options] of Object.entries({
    float32: {},
    'bfloat16 with master weights': { dtype: 'bfloat16' },
    'bfloat16 rounded at random': { dtype: 'bfloat16', masterWeights: false },
    'bfloat16 gradients': { dtype: 'bfloat16', gradientDtype: 'bfloat16' },
    'accumulating, cosine': { accumulationSteps: 3, schedule: { type: 'cosine', warmupSteps: 2 } },
  } as Record<string, Partial<RunConfigInput>>)) {
    it(`has the losses of an uninterrupted one, bit for bit: ${name}`, async () => {
      const common = { data, maxSteps: 9, checkpoint: { everySteps: 2 }, ...options };
      const whole = await run(common);
      const outDir = newFolder();
      const stop = new AbortController();
      await run({ ...common, outDir }, { signal: stop.signal, onStep: ({ step }) => step === 3 && stop.abort() });
      const again = new AbortController();
      const signal = again.signal;
      await run({ ...common, outDir }, { resume: true, signal, onStep: ({ step }) => step === 6 && again.abort() });
      const last = await run({ ...common, outDir }, { resume: true });
      assert.equal(last.finished, true);
      assert.deepEqual(await linesOf(outDir), await linesOf(whole.outDir));
      const bytes = (folder: string) => readFile(join(folder, 'model.safetensors'));
      assert.ok((await bytes(outDir)).equals(await bytes(whole.outDir)));
    });
  }

  it('goes back to its checkpoint: later lines, and half of one, are taken away', async () => {
    const common = { data, maxSteps: 7, checkpoint: { everySteps: 3 } };
    const whole = await run(common);
    const outDir = newFolder();
    const stop = new AbortController();
    await run({ ...common, outDir }, { signal: stop.signal, onStep: ({ step }) => step === 4 && stop.abort() });
    // as if a kill had left it: no checkpoint of the stop, more lines, half a line, half a checkpoint
    for (const name of await stepsIn(outDir)) {
      if (name > 'step-000003') await rm(join(outDir, 'checkpoints', name), { recursive: true });
    }
    await appendFile(join(outDir, 'metrics.jsonl'), '{"step":99,"loss":1}\n{"step":1');
    await mkdir(join(outDir, 'checkpoints', '.step-000006'));
    await run({ ...common, outDir }, { resume: true });
    assert.deepEqual(await linesOf(outDir), await linesOf(whole.outDir));
    assert.ok(!existsSync(join(outDir, 'checkpoints', '.step-000006')));
  });

  it('keeps the last checkpoints and the best', async () => {
    const outDir = newFolder();
    const validation = { files: [textFile('zyx wvu '.repeat(30))] };
    await run({
      data: { ...data, validation },
      maxSteps: 12,
      checkpoint: { everySteps: 2, keepLast: 2 },
      evaluation: { everySteps: 2 },
      outDir,
    });
    const lines = (await linesOf(outDir)) as { step: number; validationLoss?: number; perplexity?: number }[];
    const evaluations = lines.filter(({ validationLoss }) => validationLoss !== undefined);
    assert.deepEqual(
      evaluations.map(({ step }) => step),
      [2, 4, 6, 8, 10, 12],
    );
    for (const { validationLoss, perplexity } of evaluations) assert.equal(perplexity, Math.exp(validationLoss!));
    const best = evaluations.reduce((a, b) => (b.validationLoss! < a.validationLoss! ? b : a)).step;
    const expected = [...new Set([best, 10, 12])].map((step) => `step-${String(step).padStart(6, '0')}`).sort();
    assert.deepEqual(await stepsIn(outDir), expected);
    using device = openTestDevice();
    using model = await loadModel(join(outDir, 'checkpoints', expected[0]!), { device });
    assert.equal(model.config.hiddenSize, 32);
  });

  it('keeps no best checkpoint where keepBest is false', async () => {
    const outDir = newFolder();
    await run({
      data: { ...data, validation: { files: [textFile('zyx wvu '.repeat(30))] } },
      maxSteps: 4,
      optimizer: { learningRate: 1 }, // the loss rises: the first evaluation is the best
      checkpoint: { everySteps: 100, keepBest: false },
      evaluation: { everySteps: 1 },
      outDir,
    });
    const evaluations = (await linesOf(outDir)) as { validationLoss?: number }[];
    const losses = evaluations.flatMap(({ validationLoss }) => validationLoss ?? []);
    assert.ok(Math.min(...losses) < losses.at(-1)!, `${losses}`);
    assert.deepEqual(await stepsIn(outDir), ['step-000004']);
  });

  it('is refused with another configuration, another number of threads, or by accident', async () => {
    const common = { device: 'cpu', data, maxSteps: 4, checkpoint: { everySteps: 2 }, outDir: newFolder() };
    await run(common);
    await assert.rejects(run(common), /holds checkpoints of an earlier run; continue it \(--resume\)/);
    await assert.rejects(run({ ...common, seed: 5, batchSize: 2 }, { resume: true }), /another batchSize, seed;/);
    await assert.rejects(
      run({ ...common, threads: 1 }, { resume: true }),
      /"threads":2.* cannot be continued exactly on .*"threads":1.*--allow-other-machine/,
    );
    const narrow = { dtype: 'bfloat16', gradientDtype: 'bfloat16' } as const;
    await assert.rejects(run({ ...common, ...narrow }, { resume: true }), /another dtype, gradientDtype;/);
    const more = await run({ ...common, maxSteps: 6 }, { resume: true });
    assert.equal(more.metrics.length, 6);
  });

  it('validates and writes samples at the steps asked for, in a continued run too', async () => {
    const samples = { everySteps: 2, prompts: ['The quick ', 'x'], maxTokens: 5 };
    const validation = { files: [textFile('zyx wvu '.repeat(30))] };
    const evaluation = { everySteps: 2 };
    const checkpoint = { everySteps: 3 };
    const common = { data: { ...data, validation }, maxSteps: 5, samples, evaluation, checkpoint };
    const whole = await run(common);
    const outDir = newFolder();
    const stop = new AbortController();
    await run({ ...common, outDir }, { signal: stop.signal, onStep: ({ step }) => step === 4 && stop.abort() });
    await run({ ...common, outDir }, { resume: true });
    const read = async (folder: string) => await readFile(join(folder, 'samples.jsonl'), 'utf8');
    assert.equal(await read(outDir), await read(whole.outDir));
    assert.deepEqual(await linesOf(outDir), await linesOf(whole.outDir));
    const lines = (await read(outDir))
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    assert.deepEqual(
      lines.map(({ step, prompt }) => [step, prompt]),
      [2, 4, 5].flatMap((step) => samples.prompts.map((prompt) => [step, prompt])),
    );
  });

  it('has each line once where a run ended between a validation and its samples, and before its lines were written', async () => {
    const samples = { everySteps: 2, prompts: ['The quick '], maxTokens: 5 };
    const validation = { files: [textFile('zyx wvu '.repeat(30))] };
    const common = { data: { ...data, validation }, maxSteps: 6, samples, evaluation: { everySteps: 2 } };
    const whole = await run(common);
    const outDir = newFolder();
    const path = join(outDir, 'samples.jsonl');
    // The place of the samples is taken while validation's line is told.
    const onEvaluation = async ({ step }: { step: number }) => {
      if (step !== 4) return;
      rmSync(path);
      mkdirSync(path);
    };
    await assert.rejects(run({ ...common, outDir }, { onEvaluation }), /EISDIR/);
    assert.equal((await stepsIn(outDir)).at(-1), 'step-000004');
    rmdirSync(path);
    await writeFile(path, '{"step":2,"prompt":"p","text":"t"}\n{"step":9,"prompt":"p","text":"t"}\n');
    // Killed after the start of its continuation: lines of the checkpoint are not written again.
    const stop = new AbortController();
    await run(
      { ...common, outDir, samples: { everySteps: 2, prompts: ['x'], maxTokens: 1 } },
      { resume: true, signal: stop.signal, onStart: () => stop.abort() },
    );
    assert.equal(await readFile(path, 'utf8'), '{"step":2,"prompt":"p","text":"t"}\n');
    await run({ ...common, outDir }, { resume: true });
    assert.deepEqual(await linesOf(outDir), await linesOf(whole.outDir));
    const steps = (await readFile(path, 'utf8'))
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line).step);
    assert.deepEqual(steps, [2, 4, 6]);
  });

  it('is not needed after a run that ended: nothing is left of it, and it can be run again', async () => {
    const common = { data, maxSteps: 3, outDir: newFolder() };
    for (let round = 0; round < 2; round++) assert.equal((await run(common)).finished, true);
    assert.ok(!existsSync(join(common.outDir, 'checkpoints')));
  });

  it('survives kills at any moment', async () => {
    const common = { data, maxSteps: 40, checkpoint: { everySteps: 5 }, threads: 1 };
    const whole = await run(common);
    const outDir = newFolder();
    const path = join(newFolder(), 'run.yaml');
    await writeFile(path, JSON.stringify(tinyRun({ ...common, outDir })));
    for (let kills = 0; ; kills++) {
      const child = startCommand('train', '--config', path, '--resume', '--json');
      let seen = 0;
      child.stdout.on('data', (chunk: Buffer) => {
        seen += chunk.toString().split('"type":"step"').length - 1;
        if (kills < 3 && seen >= 8) child.kill('SIGKILL');
      });
      let problem = '';
      child.stderr.on('data', (chunk: Buffer) => {
        problem += chunk;
      });
      const [code, killed] = (await once(child, 'exit')) as [number | null, string | null];
      if (killed) continue;
      assert.equal(code, 0, problem);
      break;
    }
    assert.deepEqual(await linesOf(outDir), await linesOf(whole.outDir));
  }).timeout(120_000);
});

describe('both epochs and maxSteps', () => {
  it('end a run, whichever comes first', async () => {
    assert.equal((await run({ data, epochs: 0.25, maxSteps: 9 })).metrics.length, 4);
    assert.equal((await run({ data, epochs: 2, maxSteps: 3 })).metrics.length, 3);
  });
});

describe('a run on packed documents', () => {
  const documents = ['ab cd', 'the fox', 'x', 'lazy dogs sleep all day long'].map((each) => textFile(each.repeat(3)));

  it('trains on every token of every document, in the memory that the planner says', async () => {
    const { metrics, policy } = await run({
      data: { files: documents },
      maxSteps: 2,
      dtype: 'bfloat16',
      masterWeights: false,
    });
    assert.equal(
      metrics[0]!.tokens,
      ['ab cd', 'the fox', 'x', 'lazy dogs sleep all day long'].reduce((sum, each) => sum + each.length * 3 - 1, 0) -
        metrics[1]!.tokens,
    );
    const { reservedBytes } = simulateStep({
      config: decoderConfig(tinyLlama),
      B: 1,
      T: 64,
      dtype: 'bfloat16',
      policy,
      isPacked: true,
      masterWeights: false,
      like: testTarget(),
    });
    for (const { peakBytes } of metrics) assert.equal(peakBytes, reservedBytes);
  });

  it('has the loss of the documents one by one', async () => {
    const together = await run({ data: { files: documents }, maxSteps: 1, batchSize: 4 });
    const alone = await run({
      data: { files: documents, packing: false },
      maxSteps: 1,
      batchSize: 4,
      accumulationSteps: 4,
    });
    const [a, b] = [together.metrics[0]!, alone.metrics[0]!];
    assert.equal(a.tokens, b.tokens);
    assert.ok(Math.abs(a.loss / b.loss - 1) < 1e-6, `${a.loss} and ${b.loss}`);
    assert.ok(Math.abs(a.gradNorm / b.gradNorm - 1) < 1e-5, `${a.gradNorm} and ${b.gradNorm}`);
  });
});
