// The trainer: what a run writes, when it stops, what it refuses.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import {
  Decoder,
  decoderConfig,
  type LoraOptions,
  loadModel,
  NonFiniteError,
  parseConfig,
  type RunConfigInput,
  type RunWarning,
  readRunConfig,
  type StepMetrics,
  saveModel,
  simulateStep,
  train,
} from '../../lib/index.ts';
import { itOnCpu, openTestDevice, testTarget } from '../support/devices.ts';
import { newFolder, textFile, tinyLlama, tinyRun } from '../support/runs.ts';

const run = (options: Partial<RunConfigInput> = {}, callbacks: Parameters<typeof train>[1] = {}) =>
  train(parseConfig(tinyRun(options)), callbacks);

const losses = ({ metrics }: { metrics: StepMetrics[] }) => metrics.map(({ loss }) => loss);

describe('train', () => {
  it('writes one object a step, and the loss falls', async () => {
    const { metrics, outDir, finished, peakBytes } = await run({ epochs: 2 });
    const lines = (await readFile(join(outDir, 'metrics.jsonl'), 'utf8')).trimEnd().split('\n');
    assert.deepEqual(
      lines.map((line) => JSON.parse(line)),
      metrics,
    );
    assert.equal(finished, true);
    assert.deepEqual(
      metrics.map(({ step }) => step),
      Array.from({ length: 32 }, (_, i) => i + 1),
    );
    for (const epoch of [metrics.slice(0, 16), metrics.slice(16)]) {
      const tokens = epoch.reduce((sum, step) => sum + step.tokens, 0);
      assert.equal(tokens, 999, 'every token but the first is a target once an epoch');
    }
    assert.ok(metrics[31]!.loss < 0.7 * metrics[0]!.loss, `${metrics[0]!.loss} to ${metrics[31]!.loss}`);
    for (const { gradNorm, tokensPerSecond, seconds, learningRate } of metrics) {
      assert.ok(gradNorm > 0 && tokensPerSecond > 0 && seconds > 0);
      assert.equal(learningRate, 3e-3);
    }
    assert.equal(peakBytes, Math.max(...metrics.map((step) => step.peakBytes)));
    assert.ok(peakBytes > 0);
  });

  it("leaves the full configuration and the model in HuggingFace's layout", async () => {
    const config = parseConfig(tinyRun({ maxSteps: 2, memoryLimit: '1GiB' }));
    const { outDir } = await train(config);
    assert.deepEqual(await readRunConfig(join(outDir, 'config.yaml')), config);
    const saved = JSON.parse(await readFile(join(outDir, 'config.json'), 'utf8'));
    assert.equal(saved.hidden_size, tinyLlama.hidden_size);
    assert.deepEqual(saved.architectures, ['LlamaForCausalLM']);

    // Going on from the folder at learning rate 0 gives the model back as it was.
    const again = await run({ model: { path: outDir }, maxSteps: 1, optimizer: { learningRate: 0 } });
    const bytes = (folder: string) => readFile(join(folder, 'model.safetensors'));
    assert.ok((await bytes(outDir)).equals(await bytes(again.outDir)));
    assert.equal(existsSync(join(outDir, 'tokenizer.json')), false);
  });

  it('puts the tokenizer beside the model, and finds it there', async () => {
    const tokenizer = 'test/fixtures/tokenizer/tokenizer.json';
    const { vocab_size, ...config } = tinyLlama; // the tokenizer tells it
    assert.notEqual(vocab_size, 1024);
    const { outDir } = await run({ model: { config }, tokenizer, maxSteps: 1 });
    assert.equal(await readFile(join(outDir, 'tokenizer.json'), 'utf8'), await readFile(tokenizer, 'utf8'));
    assert.equal(JSON.parse(await readFile(join(outDir, 'config.json'), 'utf8')).vocab_size, 1024);
    const again = await run({ model: { path: outDir }, tokenizer: undefined, maxSteps: 1 });
    assert.ok(existsSync(join(again.outDir, 'tokenizer.json')));
  });

  it('gives the same losses for the same seed, bit for bit', async () => {
    const first = losses(await run({ maxSteps: 6, seed: 7 }));
    assert.deepEqual(losses(await run({ maxSteps: 6, seed: 7 })), first);
    assert.notDeepEqual(losses(await run({ maxSteps: 6, seed: 8 })), first);
  });

  it('sees the same sequences every epoch, in another order', async () => {
    const all = losses(await run({ epochs: 2, optimizer: { learningRate: 0 } }));
    const [first, second] = [all.slice(0, 16), all.slice(16)];
    assert.notDeepEqual(first, second);
    assert.deepEqual(first.sort(), second.sort());
  });

  it('computes the same step from micro-batches as from one batch', async () => {
    const whole = await run({ maxSteps: 4, batchSize: 4 });
    const parts = await run({ maxSteps: 4, batchSize: 1, accumulationSteps: 4 });
    const ragged = await run({ maxSteps: 4, batchSize: 3, accumulationSteps: 2 });
    const wholeOf6 = await run({ maxSteps: 4, batchSize: 6 });
    for (const [a, b] of [
      [whole, parts],
      [wholeOf6, ragged],
    ] as const) {
      a.metrics.forEach((step, i) => {
        const other = b.metrics[i]!;
        assert.equal(step.tokens, other.tokens);
        assert.ok(Math.abs(step.loss / other.loss - 1) < 1e-5, `step ${i}: ${step.loss} and ${other.loss}`);
        assert.ok(Math.abs(step.gradNorm / other.gradNorm - 1) < 1e-4);
      });
    }
  });

  it('reserves what the planner says, in every step', async () => {
    const { compareMemory } = await import('../../lib/train/memory_report.ts');
    const config = parseConfig(tinyRun({ maxSteps: 5, accumulationSteps: 2 }));
    const { metrics, policy } = await train(config);
    const { miniSequence } = compareMemory({
      config: decoderConfig(tinyLlama),
      B: 1,
      T: 64,
      dtype: 'float32',
      accumulationSteps: 2,
      isPacked: false,
      policy,
      like: testTarget(),
    });
    assert.deepEqual(
      metrics.map(({ peakBytes }) => peakBytes),
      metrics.map(() => miniSequence),
    );
  });

  itOnCpu('tells the peak of each step alone', async () => {
    const { metrics } = await run({ batchSize: 15 }); // 16 sequences: the second step has 1
    assert.ok(metrics[1]!.peakBytes < metrics[0]!.peakBytes);
  });

  it('warms up and decays', async () => {
    const schedule = { type: 'linear', warmupSteps: 2, minLearningRate: 0 } as const;
    const { metrics } = await run({ maxSteps: 5, schedule, optimizer: { learningRate: 1e-3 } });
    const rates = metrics.map(({ learningRate }) => learningRate);
    for (const [i, expected] of [1 / 2, 1, 1, 2 / 3, 1 / 3].entries())
      assert.ok(Math.abs(rates[i]! - expected * 1e-3) < 1e-12);
  });

  it('warns of a warm-up that ends with the run', async () => {
    const warnings: RunWarning[] = [];
    const schedule = { type: 'cosine', warmupSteps: 2 } as const;
    await run({ maxSteps: 2, schedule }, { onWarning: (warning) => warnings.push(warning) });
    assert.deepEqual(
      warnings.map(({ code }) => code),
      ['warm-up'],
    );
    assert.match(warnings[0]!.message, /^schedule\.warmupSteps 2 of 2 steps leaves no step for the decay/);
  });

  it('trains in bf16', async () => {
    const { metrics, outDir } = await run({ dtype: 'bfloat16', epochs: 2 });
    assert.ok(metrics.at(-1)!.loss < 0.7 * metrics[0]!.loss);
    assert.equal(JSON.parse(await readFile(join(outDir, 'config.json'), 'utf8')).dtype, 'bfloat16');
  });
});

describe('bf16 gradients', () => {
  for (const [name, options] of Object.entries({
    'of the model': {},
    'of a model with a tied head': {},
    'of adapters': { lora: { rank: 4, modules: ['q_proj', 'gate_proj', 'down_proj', 'lm_head'] } },
    'of one chunk': { chunkSizes: { mlp: 64, loss: 64 } },
  } as Record<string, Partial<RunConfigInput>>)) {
    it(`train as f32 ones do, in the memory that the planner says: ${name}`, async () => {
      const config = { ...tinyLlama, tie_word_embeddings: name.includes('tied') };
      const common = { model: { config }, dtype: 'bfloat16', maxSteps: 20, ...options } as const;
      const wide = await run(common);
      const narrow = await run({ ...common, gradientDtype: 'bfloat16' });
      narrow.metrics.forEach(({ loss, gradNorm }, i) => {
        const other = wide.metrics[i]!;
        assert.ok(Math.abs(loss / other.loss - 1) < 6e-3, `step ${i}: ${loss} and ${other.loss}`);
        assert.ok(Math.abs(gradNorm / other.gradNorm - 1) < 6e-2, `step ${i}: ${gradNorm} and ${other.gradNorm}`);
      });
      const { reservedBytes } = simulateStep({
        config: decoderConfig(config),
        B: 1,
        T: 64,
        dtype: 'bfloat16',
        gradientDtype: 'bfloat16',
        policy: narrow.policy,
        lora: options.lora as LoraOptions | undefined,
        like: testTarget(),
      });
      for (const { peakBytes } of narrow.metrics) assert.equal(peakBytes, reservedBytes);
      assert.ok(narrow.peakBytes <= wide.peakBytes, `${narrow.peakBytes} against ${wide.peakBytes}`);
    });
  }
});

describe('train stops', () => {
  it('after the step in which the signal comes, and saves', async () => {
    const stop = new AbortController();
    const { metrics, finished, outDir } = await run(
      { maxSteps: 1000 },
      { signal: stop.signal, onStep: ({ step }) => step === 3 && stop.abort() },
    );
    assert.equal(finished, false);
    assert.ok(metrics.length >= 3 && metrics.length <= 5, `${metrics.length} steps`);
    using model = await loadModel(outDir, { device: 'cpu' });
    assert.equal(model.config.hiddenSize, 32);
  });

  it('between two micro-batches, with nothing of that step in the model', async () => {
    const before = await run({ maxSteps: 1, optimizer: { learningRate: 0 } });
    const stop = new AbortController();
    const onStart = () => setImmediate(() => stop.abort());
    const { metrics, finished, outDir } = await run({ accumulationSteps: 16 }, { signal: stop.signal, onStart });
    assert.deepEqual([metrics.length, finished], [0, false]);
    const bytes = (folder: string) => readFile(join(folder, 'model.safetensors'));
    assert.ok((await bytes(outDir)).equals(await bytes(before.outDir)));
  });

  it('before the first step without writing over the model of an earlier run; --resume finds nothing to go on from', async () => {
    const { outDir } = await run({ maxSteps: 2 });
    const bytes = () => readFile(join(outDir, 'model.safetensors'));
    const trained = await bytes();
    await run({ maxSteps: 2, outDir }, { signal: AbortSignal.abort() });
    assert.ok((await bytes()).equals(trained));
    await assert.rejects(
      run({ maxSteps: 4, outDir }, { resume: true }),
      /holds model.safetensors and no checkpoint that --resume could go on from/,
    );
    assert.ok((await bytes()).equals(trained));
  });

  it("and removes no file of the user's from the folder of checkpoints", async () => {
    const outDir = newFolder();
    const kept = join(outDir, 'checkpoints', '.gitignore');
    await mkdir(dirname(kept));
    await writeFile(kept, '*');
    await run({ maxSteps: 2, outDir, checkpoint: { everySteps: 1, keepLast: 1 } });
    assert.equal(await readFile(kept, 'utf8'), '*');
  });

  it('at once if the signal came before the run', async () => {
    const { metrics, outDir } = await run({}, { signal: AbortSignal.abort() });
    assert.equal(metrics.length, 0);
    assert.ok(existsSync(join(outDir, 'model.safetensors')));
  });
});

/** A model's folder in which one parameter has one value. */
async function folderWith(name: string, value: number, others: Record<string, number> = {}): Promise<string> {
  using device = openTestDevice();
  using model = new Decoder(decoderConfig(tinyLlama), { device }).initialize(1);
  for (const [key, fill] of Object.entries({ ...others, [name]: value })) {
    const parameter = model.namedParameters().get(key)!;
    parameter.write(new Float32Array(parameter.shape.reduce((a, b) => a * b, 1)).fill(fill));
  }
  const folder = newFolder();
  await saveModel(model, folder);
  return folder;
}

describe('a step that is not finite', () => {
  it('stops the run and names the step and the loss', async () => {
    const path = await folderWith('model.norm.weight', Number.NaN);
    await assert.rejects(run({ model: { path } }), (error: Error) => {
      assert.ok(error instanceof NonFiniteError);
      assert.match(error.message, /^step 1: the loss is NaN/);
      return true;
    });
  });

  it('names the tensor whose gradient it is', async () => {
    // Hidden states of 2e37 and more: the logits are 0, the sum over equal rows in the head's gradient overflows.
    const path = await folderWith('model.norm.weight', 2e37, { 'lm_head.weight': 0 });
    const data = { files: [textFile('a'.repeat(400))] };
    await assert.rejects(run({ model: { path }, data }), /^NonFiniteError: step 1: the gradient of lm_head\.weight is/);
  });

  it('names the tensor although the next step is under way', async () => {
    // The squares of a head's gradient overflow where all 64 rows are one byte, and not where they differ.
    const path = await folderWith('model.norm.weight', 5e18, { 'lm_head.weight': 0 });
    const data = { files: [textFile(`${'a'.repeat(64 * 4)}${'The quick brown fox jumps. '.repeat(20)}`)] };
    const skipped: string[] = [];
    const optimizer = { learningRate: 0 };
    await run({ model: { path }, data, optimizer, nonFinite: 'skip' }, { onSkip: (message) => skipped.push(message) });
    assert.equal(skipped.length, 4);
    for (const message of skipped) assert.match(message, /the gradient of lm_head\.weight is not finite/);
  });

  it("is skipped with nonFinite 'skip', and changes nothing", async () => {
    const path = await folderWith('model.norm.weight', Number.NaN);
    const skipped: string[] = [];
    const { metrics, outDir } = await run(
      { model: { path }, nonFinite: 'skip', maxSteps: 3 },
      { onSkip: (message) => skipped.push(message) },
    );
    assert.equal(skipped.length, 3);
    assert.equal(metrics.length, 3);
    for (const line of (await readFile(join(outDir, 'metrics.jsonl'), 'utf8')).trimEnd().split('\n'))
      assert.equal(JSON.parse(line).loss, null);
    const bytes = (folder: string) => readFile(join(folder, 'model.safetensors'));
    assert.ok((await bytes(outDir)).equals(await bytes(path)));
  });
});

describe('train refuses', () => {
  it('a tokenizer with more ids than the model has', async () => {
    const tokenizer = 'test/fixtures/tokenizer/tokenizer.json';
    await assert.rejects(run({ tokenizer }), /the tokenizer has 1024 ids, the model's vocabulary 256/);
  });
  it('texts with an added token that the model has no row for, but no others', async () => {
    const json = JSON.parse(await readFile('test/fixtures/tokenizer/tokenizer.json', 'utf8'));
    const token = { id: 1024, content: '<image>', special: true, normalized: false };
    const tokenizer = join(newFolder(), 'tokenizer.json');
    await writeFile(tokenizer, JSON.stringify({ ...json, added_tokens: [...json.added_tokens, token] }));
    const warnings: RunWarning[] = [];
    const options = { tokenizer, model: { config: { ...tinyLlama, vocab_size: 1024 } }, maxSteps: 1 };
    await run(options, { onWarning: (warning) => warnings.push(warning) });
    assert.match(warnings[0]!.message, /vocabulary of 1024 has no row for added tokens of .*: <image> \(1024\)/);
    const data = { files: [textFile('A text with <image>.')] };
    await assert.rejects(run({ ...options, data }), /has id 1024, outside \[0, 1024\)/);
    await assert.rejects(
      run({ ...options, model: { config: { ...tinyLlama, vocab_size: 1023 } } }),
      /has 1025 ids, the model's vocabulary 1023/,
    );
  });
  it('files that cannot be read', async () => {
    await assert.rejects(run({ data: { files: ['no/such.txt'] } }), /no\/such\.txt: cannot be read/);
  });
  it('a folder without a model', async () => {
    const path = newFolder();
    await assert.rejects(run({ model: { path } }), new RegExp(`${path}/config\\.json: cannot be read`));
  });
  it('a memory limit that nothing fits', async () => {
    await assert.rejects(run({ memoryLimit: 200_000 }), /OutOfMemoryError/);
  });
});
