// Runs on several ranks: the numbers of one rank with as many micro-batches a step, files once, ends together.
import assert from 'node:assert/strict';
import { cp, readdir } from 'node:fs/promises';
import {
  type Decoder,
  type Optimizer,
  type ProcessGroup,
  parseConfig,
  type RunConfigInput,
  type TrainOptions,
  type TrainResult,
  TrainStep,
  train,
} from '../../lib/index.ts';
import { itOnCpuRanks, onRanks } from '../support/ranks.ts';
import { linesOf, modelOf, newFolder, stepsIn, tinyRun } from '../support/runs.ts';
import { assertCloseSteps, stepNumbers as steps } from '../support/step_numbers.ts';

/** A run on ranks of one process; what rank 0 returns. */
async function runOnRanks(
  size: number,
  options: RunConfigInput,
  more: Partial<TrainOptions> = {},
): Promise<TrainResult> {
  const results = await onRanks(size, (ranks) => train(parseConfig({ ...options, threads: 1 }), { ...more, ranks }));
  for (const { finished } of results) assert.equal(finished, results[0]!.finished);
  return results[0]!;
}

describe('a run on several ranks', () => {
  const cases: [string, number, RunConfigInput, number, number][] = [
    ['2 ranks', 2, tinyRun({ maxSteps: 6 }), 1, 1e-6],
    ['4 ranks, an epoch that they do not divide', 4, tinyRun({ epochs: 1.5, batchSize: 3 }), 1, 1e-6],
    ['2 ranks that accumulate', 2, tinyRun({ maxSteps: 5 }), 2, 1e-6],
    ['packed documents', 2, tinyRun({ maxSteps: 4, data: packed(), sequenceLength: 48 }), 1, 1e-6],
    ['adapters with dropout', 2, tinyRun({ maxSteps: 5, lora: { rank: 4, dropout: 0.3 } }), 1, 1e-6],
    ['dropout and an epoch that 2 ranks do not divide', 2, ragged(6), 1, 1e-6],
    ['dropout and an epoch that 3 ranks do not divide', 3, ragged(1), 2, 1e-6],
    ['dropout and ranks without a micro-batch', 3, ragged(1), 1, 1e-6],
    ['bf16', 2, tinyRun({ maxSteps: 4, dtype: 'bfloat16' }), 1, 1e-4],
  ];
  for (const [name, size, options, accumulationSteps, tolerance] of cases) {
    itOnCpuRanks(`has the losses and norms of one rank: ${name}`, async () => {
      const expected = await train(
        parseConfig({ ...options, threads: 1, accumulationSteps: accumulationSteps * size, outDir: newFolder() }),
      );
      assertCloseSteps(
        await runOnRanks(size, { ...options, accumulationSteps, outDir: newFolder() }),
        expected,
        tolerance,
      );
    });
  }

  itOnCpuRanks(
    'has them with the step in the backward, for which one rank takes a batch of more sequences',
    async () => {
      const options = tinyRun({ maxSteps: 5, optimizer: { inBackward: true, learningRate: 3e-3 } });
      const expected = await train(parseConfig({ ...options, threads: 1, batchSize: 3, outDir: newFolder() }));
      assertCloseSteps(await runOnRanks(3, { ...options, outDir: newFolder() }), expected, 1e-6);
    },
  );

  itOnCpuRanks('writes each file once, validates, and saves the model of one rank', async () => {
    const options = tinyRun({
      maxSteps: 6,
      data: { ...tinyRun().data, validation: { fraction: 0.25 } },
      evaluation: { everySteps: 2 },
      samples: { everySteps: 3, prompts: ['The'], maxTokens: 4 },
      checkpoint: { everySteps: 3 },
    });
    const alone = await train(parseConfig({ ...options, threads: 1, accumulationSteps: 2, outDir: newFolder() }));
    const { outDir } = await runOnRanks(2, { ...options, outDir: newFolder() });
    assert.deepEqual((await readdir(outDir)).sort(), (await readdir(alone.outDir)).sort());
    const [lines, expected] = [await linesOf(outDir), await linesOf(alone.outDir)];
    assert.deepEqual(
      lines.map((line) => Object.keys(line)),
      expected.map((line) => Object.keys(line)),
    );
    assert.deepEqual(await stepsIn(outDir), await stepsIn(alone.outDir));
  });

  itOnCpuRanks(
    'goes on bit for bit on as many ranks; on others by name, with as many micro-batches a step',
    async () => {
      const options = tinyRun({ maxSteps: 8 });
      const whole = await runOnRanks(2, { ...options, outDir: newFolder() });
      const outDir = newFolder();
      const stop = new AbortController();
      const onStep = ({ step }: { step: number }) => {
        if (step === 4) stop.abort();
      };
      const stopped = await runOnRanks(2, { ...options, outDir }, { signal: stop.signal, onStep });
      assert.equal(stopped.finished, false);
      const config = (change: object) => parseConfig({ ...options, outDir, threads: 1, ...change });
      await assert.rejects(
        train(config({}), { resume: true }),
        /with 2 micro-batches a step \(accumulationSteps 1, ranks 2\).* are 1/,
      );
      await assert.rejects(
        train(config({ accumulationSteps: 2 }), { resume: true }),
        /on 2 ranks and cannot be continued exactly/,
      );
      const copy = newFolder();
      await cp(outDir, copy, { recursive: true });
      const resumed = await runOnRanks(2, { ...options, outDir }, { resume: true });
      assert.deepEqual(steps(resumed), steps(whole));
      assert.deepEqual(await modelOf(outDir), await modelOf(whole.outDir));
      const alone = await train(config({ accumulationSteps: 2, outDir: copy }), {
        resume: true,
        allowOtherMachine: true,
      });
      assertCloseSteps(alone, whole, 1e-6);
    },
  );

  itOnCpuRanks('ends every rank where one fails, with its message', async () => {
    const config = parseConfig({ ...tinyRun({ maxSteps: 50 }), threads: 1 });
    const results = await onRanks(2, async (ranks) => {
      const onStep = () => {
        throw new Error('no room left');
      };
      return await train(config, { ranks, onStep }).then(
        () => 'ended well',
        (error: Error) => `${error.name}: ${error.message}`,
      );
    });
    assert.match(results[0]!, /^Error: no room left$/);
    assert.match(results[1]!, /^RankError: rank 0 (at step \d+: )?no room left$/);
  });

  it('needs a policy that every rank has', () => {
    const group = {} as ProcessGroup;
    assert.throws(
      () => new TrainStep({} as Decoder, {} as Optimizer, { group }),
      /group needs a policy.* policy is null/,
    );
  });

  itOnCpuRanks('refuses ranks that differ in configuration, model or data', async () => {
    const options = tinyRun({ maxSteps: 2 });
    const differing = (change: (rank: number) => object) =>
      onRanks(2, (ranks) => train(parseConfig({ ...options, threads: 1, ...change(ranks.rank) }), { ranks }));
    await assert.rejects(
      differing((rank) => ({ seed: rank })),
      /ranks: rank 1 has another configuration than rank 0/,
    );
  });
});

function packed(): RunConfigInput['data'] {
  return { ...tinyRun().data, packing: true };
}

/** The last of an epoch's 16 sequences make a smaller step, and the next epoch follows. */
function ragged(batchSize: number): RunConfigInput {
  return tinyRun({ epochs: 1.5, batchSize, lora: { rank: 4, dropout: 0.3 } });
}
