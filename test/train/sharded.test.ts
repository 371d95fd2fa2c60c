// Runs whose ranks share the optimizer's states: the numbers of one rank, memory as planned, checkpoints for any number of ranks.
import assert from 'node:assert/strict';
import { cp, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { parseConfig, type RunConfigInput, type TrainOptions, type TrainResult, train } from '../../lib/index.ts';
import { itOnCpuRanks, onRanks } from '../support/ranks.ts';
import { modelOf, newFolder, stepsIn, tinyModelFolder, tinyRun } from '../support/runs.ts';
import { assertCloseSteps, stepNumbers as steps } from '../support/step_numbers.ts';

const sharded = (options: Partial<RunConfigInput>) => tinyRun({ parallel: { shard: 'optimizer' }, ...options });

async function runOnRanks(
  size: number,
  options: RunConfigInput,
  more: Partial<TrainOptions> = {},
): Promise<TrainResult> {
  const config = parseConfig({ ...options, threads: 1 });
  return (await onRanks(size, (ranks) => train(config, { ...more, ranks })))[0]!;
}

const alone = (options: RunConfigInput, more: TrainOptions = {}) =>
  train(parseConfig({ ...options, threads: 1, outDir: newFolder() }), more);

/** Larger matrices, so that each of 4 ranks has a part, and narrow states. */
const wide = { ...(tinyRun().model as { config: object }).config, hidden_size: 64, intermediate_size: 176 };

describe('a run whose ranks share the optimizer', () => {
  const bits = (stateBits: 32 | 16 | 8) => ({ learningRate: 3e-3, stateBits });
  const cases: [string, number, Partial<RunConfigInput>, number][] = [
    ['20 steps on 2 ranks', 2, { maxSteps: 20 }, 1e-5],
    ['4 ranks, an epoch that they do not divide', 4, { epochs: 1.5, batchSize: 3, model: { config: wide } }, 1e-5],
    ['16-bit states', 2, { maxSteps: 5, optimizer: bits(16), model: { config: wide } }, 1e-4],
    ['8-bit states', 3, { maxSteps: 5, optimizer: bits(8), model: { config: wide } }, 1e-4],
    ['adapters with dropout', 2, { maxSteps: 5, lora: { rank: 4, dropout: 0.3 } }, 1e-6],
    ['bf16 with masters', 2, { maxSteps: 5, dtype: 'bfloat16' }, 1e-3],
    ['bf16 without', 2, { maxSteps: 5, dtype: 'bfloat16', masterWeights: false }, 1e-3],
    ['clipping of each parameter', 2, { maxSteps: 5, clipping: 'parameter', maxGradNorm: 0.05 }, 1e-5],
  ];
  for (const [name, size, options, tolerance] of cases) {
    itOnCpuRanks(`has the losses and norms of one rank: ${name}`, async () => {
      const expected = await alone(tinyRun({ accumulationSteps: size, ...options }));
      const found = await runOnRanks(size, sharded(options));
      assertCloseSteps(found, expected, tolerance);
      assert.ok(found.peakBytes < expected.peakBytes, `${found.peakBytes} bytes, one rank ${expected.peakBytes}`);
    });
  }

  itOnCpuRanks('has them with the step in the backward', async () => {
    for (const clipping of ['previous', 'parameter'] as const) {
      const options = { maxSteps: 5, optimizer: { inBackward: true, learningRate: 3e-3 }, clipping, maxGradNorm: 0.1 };
      const expected = await alone(tinyRun({ ...options, batchSize: 3 }));
      assertCloseSteps(await runOnRanks(3, sharded(options)), expected, 1e-5);
    }
  });

  itOnCpuRanks('has the weights of ranks with all states, bit for bit where nothing is clipped', async () => {
    const folder = await tinyModelFolder({ hidden_size: 64, intermediate_size: 176 });
    for (const [dtype, stateBits, masterWeights] of [
      ['float32', 32, true],
      ['bfloat16', 16, true],
      ['bfloat16', 8, false],
    ] as const) {
      const options = { maxSteps: 4, dtype, masterWeights, maxGradNorm: 0, optimizer: bits(stateBits) };
      const more = { model: { path: folder }, tokenizer: 'bytes', ...options };
      const [found, expected] = [
        await runOnRanks(2, sharded({ ...more, outDir: newFolder() })),
        await runOnRanks(2, tinyRun({ ...more, outDir: newFolder() })),
      ];
      assert.deepEqual(
        steps(found).map(({ loss }) => loss),
        steps(expected).map(({ loss }) => loss),
      );
      assert.deepEqual(await modelOf(found.outDir), await modelOf(expected.outDir), `${dtype}, ${stateBits} bits`);
    }
  });

  itOnCpuRanks('takes what `meta` says, to the byte, and less than with all states on each rank', async () => {
    for (const more of [{}, { optimizer: { stateBits: 8 as const } }, { lora: { rank: 4 } }]) {
      const options = { maxSteps: 3, dtype: 'bfloat16' as const, model: { config: wide }, ...more };
      const planned: number[] = [];
      const config = parseConfig({ ...sharded(options), threads: 1 });
      const onStart = ({ plan }: { plan: { reservedBytes: number } }) => planned.push(plan.reservedBytes);
      const [{ peakBytes }] = (await onRanks(2, (ranks) => train(config, { ranks, onStart }))) as [TrainResult];
      assert.deepEqual([peakBytes], planned);
      const { peakBytes: whole } = await runOnRanks(2, tinyRun(options));
      assert.ok(peakBytes < whole, `${peakBytes}, ${whole}`);
    }
  });

  itOnCpuRanks('goes on bit for bit on as many ranks, and on another number with the same numbers', async () => {
    const optimizer = { stateBits: 8 as const, learningRate: 3e-3 };
    const options = sharded({ maxSteps: 8, optimizer, model: { config: wide }, dtype: 'bfloat16' });
    const whole = await runOnRanks(2, { ...options, accumulationSteps: 2, outDir: newFolder() });
    const outDir = newFolder();
    const stop = new AbortController();
    const onStep = ({ step }: { step: number }) => {
      if (step === 4) stop.abort();
    };
    await runOnRanks(2, { ...options, accumulationSteps: 2, outDir }, { signal: stop.signal, onStep });
    const [step] = await stepsIn(outDir);
    const files = (await readdir(join(outDir, 'checkpoints', step!))).filter((name) => name.startsWith('optimizer'));
    assert.deepEqual(files.sort(), ['optimizer-00001-of-00002.safetensors', 'optimizer-00002-of-00002.safetensors']);
    const copies = await Promise.all(
      [1, 2, 3].map(async () => {
        const copy = newFolder();
        await cp(outDir, copy, { recursive: true });
        return copy;
      }),
    );
    const resumed = await runOnRanks(2, { ...options, accumulationSteps: 2, outDir }, { resume: true });
    assert.deepEqual(steps(resumed), steps(whole));
    assert.deepEqual(await modelOf(outDir), await modelOf(whole.outDir));
    const others: [number, RunConfigInput][] = [
      [4, { ...options, accumulationSteps: 1 }],
      [2, { ...options, accumulationSteps: 2, parallel: { shard: 'none' } }],
    ];
    const more = { resume: true, allowOtherMachine: true };
    for (const [i, [size, other]] of others.entries()) {
      assertCloseSteps(await runOnRanks(size, { ...other, outDir: copies[i]! }, more), whole, 1e-3);
    }
    const one = parseConfig({ ...options, accumulationSteps: 4, threads: 1, outDir: copies[2]! });
    assertCloseSteps(await train(one, more), whole, 1e-3);
  });
});
