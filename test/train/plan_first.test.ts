// A run is planned before its weights are read: refused where it cannot fit, with what would; and it takes what the plan says.
import assert from 'node:assert/strict';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { terminalOutput } from '../../lib/cli/run_output.ts';
import { addLora, OutOfMemoryError, parseConfig, type RunConfigInput, saveAdapter, train } from '../../lib/index.ts';
import { removeLora } from '../../lib/models/lora.ts';
import type { RunWarning } from '../../lib/train/events.ts';
import type { Progress } from '../../lib/train/metrics.ts';
import type { RunPlan } from '../../lib/train/policy.ts';
import { newFolder, run, textFile, tinyModelFolder, tinyRun } from '../support/runs.ts';

const auto = { chunkSizes: { mlp: 'auto', loss: 'auto' }, mlpSave: 'auto', recompute: 'auto' } as const;
const bfloat16 = { dtype: 'bfloat16' } as const;
const optimizer = { learningRate: 3e-3 };
const text = textFile('The quick brown fox jumps over the lazy dog.\n'.repeat(3000));
/** Sequences whose activations are most of a step's memory. */
const long = { data: { files: [text] }, sequenceLength: 2048 };

/** A model's folder and one of adapters for it. */
async function folders(): Promise<{ path: string; adapter: string }> {
  const adapter = newFolder();
  const path = await tinyModelFolder(
    {},
    {
      change: async (model) => {
        addLora(model, { rank: 3, modules: ['v_proj', 'down_proj'] });
        await saveAdapter(model, adapter);
        removeLora(model);
      },
    },
  );
  return { path, adapter };
}

describe('a run is planned before its weights are read', () => {
  const cases: Record<string, (adapter: string) => Partial<RunConfigInput>> = {
    'all parameters': () => ({}),
    'chunks and layers as they are fixed': () => ({ chunkSizes: { mlp: 24, loss: 24 }, recompute: 'layer' }),
    'a rung alone fixed': () => ({ ...auto, recompute: 'attention' }),
    'several micro-batches': () => ({ ...auto, accumulationSteps: 3, batchSize: 2 }),
    'bf16 with masters': () => ({ ...auto, ...bfloat16 }),
    'bf16 gradients, 8-bit states': () => ({
      ...auto,
      ...bfloat16,
      gradientDtype: 'bfloat16',
      masterWeights: false,
      optimizer: { ...optimizer, stateBits: 8 },
    }),
    'step in the backward, 16-bit states': () => ({
      ...auto,
      optimizer: { ...optimizer, stateBits: 16, inBackward: true },
    }),
    'new adapters': () => ({ ...auto, lora: { rank: 4 } }),
    'adapters of a folder': (adapter) => ({ ...auto, ...bfloat16, lora: { from: adapter } }),
  };
  for (const [name, optionsOf] of Object.entries(cases)) {
    it(`takes what it says, and with less is refused with the longest T that fits: ${name}`, async () => {
      const { path, adapter } = await folders();
      const options = { model: { path }, maxSteps: 2, ...optionsOf(adapter) };
      let plan: RunPlan | null = null;
      const { peakBytes } = await run(options, { onStart: (start) => ({ plan } = start) });
      assert.equal(peakBytes, plan!.reservedBytes);
      const less = { ...options, data: { files: [text] }, memoryLimit: 12 * 2 ** 20 };
      await rm(join(path, 'model.safetensors')); // nothing may want it
      let message = '';
      await assert.rejects(run({ ...less, sequenceLength: 20_000 }), (error) => {
        assert.ok(error instanceof OutOfMemoryError, String(error));
        ({ message } = error);
        return true;
      });
      assert.match(
        message,
        /no chunk size or recomputation makes a step fit in .* a shorter sequence \(T \d+ fits\).* would help/,
      );
      const longest = Number(/\(T (\d+) fits\)/.exec(message)![1]);
      assert.ok(longest >= 64, message);
      await assert.rejects(run({ ...less, sequenceLength: longest }), /model\.safetensors/);
    });
  }

  it('one that goes on keeps its policy, and is refused where that does not fit, or planned again where it may be', async () => {
    const outDir = newFolder();
    const common = { ...auto, ...long, maxSteps: 3, checkpoint: { everySteps: 1 }, outDir };
    const stop = new AbortController();
    const plans: RunPlan[] = [];
    const onStart = ({ plan }: { plan: RunPlan }) => plans.push(plan);
    await run(common, { signal: stop.signal, onStart, onStep: ({ step }) => step === 1 && stop.abort() });
    const [first] = plans;
    assert.equal(first!.isContinued, false);
    const less = { ...common, memoryLimit: first!.reservedBytes - 2 ** 16 };
    await assert.rejects(
      run(less, { resume: true }),
      /policy that it began with.*memoryLimit is .*--allow-other-machine/,
    );
    const again = new AbortController();
    const { signal } = again;
    await run(common, { resume: true, onStart, signal, onStep: ({ step }) => step === 2 && again.abort() });
    const { memoryLimit: _, ...second } = plans[1]!;
    const { policy, reservedBytes } = first!;
    assert.deepEqual(second, { policy, reservedBytes, before: null, isContinued: true });
    const warnings: RunWarning[] = [];
    const onWarning = (warning: RunWarning) => warnings.push(warning);
    const { finished } = await run(less, { resume: true, allowOtherMachine: true, onStart, onWarning });
    assert.equal(finished, true);
    assert.deepEqual(
      warnings.map(({ code }) => code),
      ['inexact'],
    );
    assert.ok(plans[2]!.reservedBytes < first!.reservedBytes && plans[2]!.before);
  });

  it('prints what it chose and why in two lines', async () => {
    const lines: string[] = [];
    const { log } = console;
    const quiet = () => {};
    const printed = async (options: Partial<RunConfigInput>) => {
      const config = parseConfig(tinyRun({ ...auto, ...long, maxSteps: 1, ...options }));
      console.log = (line: string) => lines.push(line);
      try {
        const onEvent = terminalOutput(config, { show: quiet, note: quiet, end: quiet } as unknown as Progress, quiet);
        await train(config, { onEvent });
      } finally {
        console.log = log;
      }
      return lines.splice(0).slice(1, 3);
    };
    const [what, why] = await printed({});
    assert.match(what!, /^recompute none, mlpSave gateUp; chunks of .* in the head; a step takes \d+\.\d+ MiB of \d+/);
    assert.match(why!, /^the fastest of all fits into /);
    const taken = Number(/takes (\d+\.\d+) MiB/.exec(what!)![1]) * 2 ** 20;
    const [, slower] = await printed({ memoryLimit: Math.floor(taken - 2 ** 18) });
    assert.match(slower!, /^the fastest that fits: the one before it \(recompute .*\) takes \d+\.\d+ MiB$/);
  });
});
