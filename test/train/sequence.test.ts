// Runs of ranks that share sequences: the numbers of one rank, also of validation; they go on bit for bit.
import assert from 'node:assert/strict';
import { parseConfig, type RunConfigInput, type TrainOptions, type TrainResult, train } from '../../lib/index.ts';
import { itOnCpuRanks, onRanks } from '../support/ranks.ts';
import { linesOf, modelOf, newFolder, tinyRun } from '../support/runs.ts';

/** What rank 0 returns. */
async function runOnRanks(size: number, sequence: number, options: RunConfigInput, more: Partial<TrainOptions> = {}) {
  const config = parseConfig({ ...options, threads: 1, parallel: { ...options.parallel, sequence } });
  const [first] = await onRanks(size, (ranks) => train(config, { ...more, ranks }));
  return first!;
}

const numbers = ({ metrics }: TrainResult) => metrics.map(({ loss, gradNorm, tokens }) => [loss, gradNorm, tokens]);

function assertClose(actual: number[][], expected: number[][], tolerance: number): void {
  assert.equal(actual.length, expected.length);
  for (const [i, values] of actual.entries()) {
    for (const [j, value] of values.entries()) {
      const error = Math.abs(value - expected[i]![j]!) / expected[i]![j]!;
      assert.ok(error <= tolerance, `line ${i + 1}: ${values}, expected ${expected[i]}`);
    }
  }
}

describe('a run of ranks that share sequences', () => {
  const packed = { ...tinyRun().data, packing: true };
  const cases: [string, number, number, RunConfigInput][] = [
    ['2', 2, 2, tinyRun({ maxSteps: 5, accumulationSteps: 2 })],
    [
      '2 × 2, the last step without micro-batches for some',
      4,
      2,
      tinyRun({ epochs: 1, batchSize: 3, sequenceLength: 63 }),
    ],
    ['2 × 2, with a shared optimizer', 4, 2, tinyRun({ maxSteps: 5, parallel: { shard: 'optimizer' } })],
    [
      '2, packed, adapters with dropout',
      2,
      2,
      tinyRun({ maxSteps: 4, data: packed, sequenceLength: 47, lora: { rank: 4, dropout: 0.3 } }),
    ],
  ];
  for (const [name, size, sequence, options] of cases) {
    itOnCpuRanks(`has the losses and norms of one: ${name}`, async () => {
      const { accumulationSteps = 1 } = options;
      const steps = (accumulationSteps * size) / sequence;
      const alone = { threads: 1, accumulationSteps: steps, parallel: {}, outDir: newFolder() };
      const one = parseConfig({ ...options, ...alone });
      const expected = await train(one);
      assertClose(
        numbers(await runOnRanks(size, sequence, { ...options, outDir: newFolder() })),
        numbers(expected),
        1e-5,
      );
    });
  }

  itOnCpuRanks('validates on all ranks with the numbers of one, and goes on bit for bit', async () => {
    const options = tinyRun({
      maxSteps: 6,
      data: { ...tinyRun().data, validation: { fraction: 0.35 } },
      evaluation: { everySteps: 2 },
      samples: { everySteps: 3, prompts: ['The'], maxTokens: 4 },
    });
    const losses = async (outDir: string) =>
      (await linesOf(outDir)).flatMap((line) => ('validationLoss' in line ? [[line.validationLoss as number]] : []));
    const one = { ...options, threads: 1, outDir: newFolder() };
    const expected = await train(parseConfig({ ...one, accumulationSteps: 2 }));
    const whole = await runOnRanks(4, 2, { ...options, outDir: newFolder() });
    assert.equal((await losses(whole.outDir)).length, 3);
    assertClose(await losses(whole.outDir), await losses(expected.outDir), 1e-5);
    const outDir = newFolder();
    const stop = new AbortController();
    const onStep = ({ step }: { step: number }) => {
      if (step === 3) stop.abort();
    };
    const stopped = await runOnRanks(4, 2, { ...options, outDir }, { signal: stop.signal, onStep });
    assert.equal(stopped.finished, false);
    await assert.rejects(
      runOnRanks(4, 4, { ...options, outDir }, { resume: true }),
      /belongs to a run with another parallel.sequence/,
    );
    const resumed = await runOnRanks(4, 2, { ...options, outDir }, { resume: true });
    assert.deepEqual(numbers(resumed), numbers(whole));
    assert.deepEqual(await losses(outDir), await losses(whole.outDir));
    assert.deepEqual(await modelOf(outDir), await modelOf(whole.outDir));
  });

  itOnCpuRanks('is refused where they do not divide the ranks or the heads', async () => {
    const options = tinyRun({ maxSteps: 1 });
    await assert.rejects(
      train(parseConfig({ ...options, parallel: { sequence: 2 } })),
      /parallel.sequence: 2 ranks share each sequence, and there is 1 rank/,
    );
    await assert.rejects(runOnRanks(3, 2, options), /parallel.sequence: 2 .* there are 3 ranks/);
    await assert.rejects(runOnRanks(3, 3, options), /3 must divide the 4 query heads/);
  });
});
