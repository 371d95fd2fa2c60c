// Runs with the optimizer step inside the backward: the ordinary run's losses, exact continuation, and steps that are not finite.
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { terminalOutput } from '../../lib/cli/run_output.ts';
import {
  Decoder,
  decoderConfig,
  NonFiniteError,
  parseConfig,
  type RunConfigInput,
  saveModel,
  type TrainOptions,
  train,
} from '../../lib/index.ts';
import type { Progress } from '../../lib/train/metrics.ts';
import { openTestDevice } from '../support/devices.ts';
import { linesOf, modelOf, newFolder, run, stepsIn, textFile, tinyLlama, tinyRun } from '../support/runs.ts';

const data = { files: [textFile('The quick brown fox jumps over the lazy dog.\n'.repeat(23).slice(0, 1000))] };
const optimizer = { learningRate: 3e-3, inBackward: true };

/** Lines of metrics.jsonl without the memory. */
const numbersOf = async (outDir: string) =>
  ((await linesOf(outDir)) as { peakBytes?: number }[]).map(({ peakBytes, ...rest }) => rest);

describe('a run with the optimizer step in the backward', () => {
  it('has the losses and the model of the ordinary run where nothing is clipped, in less memory', async () => {
    const common = { data, maxSteps: 4, clipping: 'none', dtype: 'bfloat16' } as const;
    const ordinary = await run({ ...common, optimizer: { ...optimizer, inBackward: false } });
    const inBackward = await run({ ...common, optimizer });
    assert.deepEqual(await numbersOf(inBackward.outDir), await numbersOf(ordinary.outDir));
    assert.ok((await modelOf(inBackward.outDir)).equals(await modelOf(ordinary.outDir)));
    assert.ok(inBackward.peakBytes <= ordinary.peakBytes);
  });

  for (const [name, options] of Object.entries({
    "clipping 'previous'": { maxGradNorm: 0.05 },
    "clipping 'parameter', rounded at random": {
      maxGradNorm: 0.05,
      clipping: 'parameter',
      dtype: 'bfloat16',
      masterWeights: false,
    },
  } as Record<string, Partial<RunConfigInput>>)) {
    it(`that is continued has the losses of an uninterrupted one, bit for bit: ${name}`, async () => {
      const common = { data, maxSteps: 9, checkpoint: { everySteps: 2 }, optimizer, ...options };
      const whole = await run(common);
      const outDir = newFolder();
      const stop = new AbortController();
      await run({ ...common, outDir }, { signal: stop.signal, onStep: ({ step }) => step === 3 && stop.abort() });
      await run({ ...common, outDir }, { resume: true });
      assert.deepEqual(await linesOf(outDir), await linesOf(whole.outDir));
      assert.ok((await modelOf(outDir)).equals(await modelOf(whole.outDir)));
      const changed = { ...common, outDir, optimizer: { ...optimizer, inBackward: false } };
      await assert.rejects(run(changed, { resume: true }), /another optimizer\.inBackward;/);
    });
  }

  /** A folder whose model has a norm and a head of these values. */
  async function folderWith(norm: number, head: number): Promise<string> {
    using device = openTestDevice();
    using model = new Decoder(decoderConfig(tinyLlama), { device }).initialize(1);
    for (const [name, value] of Object.entries({ 'model.norm.weight': norm, 'lm_head.weight': head })) {
      const parameter = model.namedParameters().get(name)!;
      parameter.write(new Float32Array(parameter.size).fill(value));
    }
    const folder = newFolder();
    await saveModel(model, folder);
    return folder;
  }

  it('skips steps by their loss alone, which change nothing', async () => {
    const path = await folderWith(Number.NaN, 0);
    const skipped: string[] = [];
    const onSkip = (message: string) => skipped.push(message);
    const { outDir } = await run({ model: { path }, optimizer, nonFinite: 'skip', maxSteps: 3 }, { onSkip });
    assert.equal(skipped.length, 3);
    for (const message of skipped) assert.match(message, /the loss is NaN; no parameter was changed by it/);
    assert.ok((await modelOf(outDir)).equals(await modelOf(path)));
    const stops = run({ model: { path }, optimizer });
    await assert.rejects(stops, /^NonFiniteError: step 1: the loss is NaN; no parameter was changed/);
  });

  it('stops at its last checkpoint for a gradient that is not finite, whatever nonFinite is', async () => {
    // The squares of a head's gradient overflow where all 64 rows are one byte, and not where they differ.
    const path = await folderWith(5e18, 0);
    const text = textFile(`${'a'.repeat(64 * 4)}${'The quick brown fox jumps. '.repeat(20)}`);
    const common: Partial<RunConfigInput> = { model: { path }, data: { files: [text] }, nonFinite: 'skip' };
    const found: string[] = [];
    const ordinary = { ...common, optimizer: { learningRate: 0 } };
    await run(ordinary, { onSkip: (message) => found.push(message) });
    const first = Number(/^step (\d+)/.exec(found[0]!)![1]);
    assert.ok(first > 1, 'a step before it has a checkpoint');
    const outDir = newFolder();
    const options: TrainOptions = { onSkip: () => assert.fail('it is not skipped') };
    const stops = {
      ...common,
      outDir,
      optimizer: { learningRate: 0, inBackward: true },
      checkpoint: { everySteps: 1 },
    };
    await assert.rejects(run(stops, options), (error) => {
      assert.ok(error instanceof NonFiniteError && error.isHalfDone);
      const message = new RegExp(
        `^step ${first}: the gradient of lm_head\\.weight is not finite, and with optimizer\\.inBackward true other ` +
          'parameters were updated .* --resume goes on from the last checkpoint',
      );
      assert.match(error.message, message);
      return true;
    });
    const last = (await stepsIn(outDir)).at(-1);
    assert.equal(last, `step-${String(first - 1).padStart(6, '0')}`);
    assert.equal((await linesOf(outDir)).length, first - 1);
    // Nothing is saved after it although the next step was under way, and its checkpoint is whole.
    const rest = { ...stops, checkpoint: { everySteps: 100 }, maxSteps: first - 1 };
    assert.equal((await run(rest, { resume: true })).finished, true);
    const rare = { ...stops, outDir: newFolder(), checkpoint: { everySteps: 100 } };
    await assert.rejects(run(rare, options), NonFiniteError);
    await assert.rejects(stepsIn(rare.outDir), /ENOENT/);
    await assert.rejects(modelOf(rare.outDir), /ENOENT/);
  });

  it('keeps the norm of the last step in its checkpoint', async () => {
    const { outDir } = await run({ data, maxSteps: 3, checkpoint: { everySteps: 1 }, optimizer });
    const state = JSON.parse(await readFile(join(outDir, 'checkpoints', 'step-000003', 'state.json'), 'utf8'));
    const lines = (await linesOf(outDir)) as { gradNorm: number }[];
    assert.equal(state.previousNorm, lines.at(-1)!.gradNorm);
  });

  it('is printed with its clipping', async () => {
    const config = parseConfig(tinyRun({ data, maxSteps: 1, optimizer }));
    const lines: string[] = [];
    const { log } = console;
    console.log = (line: string) => lines.push(line);
    try {
      const quiet = () => {};
      const onEvent = terminalOutput(config, { show: quiet, note: quiet, end: quiet } as unknown as Progress, quiet);
      await train(config, { onEvent });
    } finally {
      console.log = log;
    }
    assert.ok(lines.includes('optimizer step in the backward; clipping: previous'), lines.join('\n'));
  });

  it('refuses several micro-batches and clipping that needs all gradients', () => {
    const refused = (options: Partial<RunConfigInput>, message: RegExp) =>
      assert.throws(() => parseConfig(tinyRun(options)), message);
    const several = /optimizer\.inBackward: true frees .* accumulationSteps 3 cannot .* larger batchSize, or false/;
    refused({ optimizer, accumulationSteps: 3 }, several);
    refused(
      { optimizer, clipping: 'global' },
      /clipping: 'global' needs all .* optimizer\.inBackward true .*'previous'/,
    );
    refused({ clipping: 'previous' }, /clipping: 'previous' is for optimizer\.inBackward true, .* is false/);
    refused({ clipping: 'parameter', maxGradNorm: 0 }, /clipping: 'parameter' contradicts maxGradNorm 0/);
    assert.equal(parseConfig(tinyRun({ optimizer, clipping: 'parameter' })).clipping, 'parameter');
  });
});
