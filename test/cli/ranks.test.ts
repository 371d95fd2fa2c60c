// minisequence train on several processes: how they start, stop and end, on the CPU.
import assert from 'node:assert/strict';
import type { ChildProcessWithoutNullStreams } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { stringify } from 'yaml';
import { startCommand } from '../support/command.ts';
import { itOnCpuRanks } from '../support/ranks.ts';
import { linesOf, newFolder, stepsIn, tinyRun } from '../support/runs.ts';

/** Starts two ranks in a new folder. */
async function startRanks(options: object, ...args: string[]) {
  const outDir = newFolder();
  const config = join(newFolder(), 'config.yaml');
  await writeFile(config, stringify({ ...tinyRun({ ...options, outDir }), threads: 1 }));
  const child = startCommand('train', '--config', config, '--gpus', '2', ...args);
  const text = { out: '', errors: '' };
  child.stdout.on('data', (data) => {
    text.out += data;
  });
  child.stderr.on('data', (data) => {
    text.errors += data;
  });
  return { child, text, outDir, config };
}

const ranksOf = ({ pid }: ChildProcessWithoutNullStreams): number[] =>
  readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean).map(Number);

/** Whether a process runs; one that has ended and was not asked for does not. */
function isAlive(pid: number): boolean {
  if (!existsSync(`/proc/${pid}`)) return false;
  return !/\) Z /.test(readFileSync(`/proc/${pid}/stat`, 'utf8'));
}

/** Lines of metrics.jsonl. */
function stepsDone(outDir: string): number {
  const path = join(outDir, 'metrics.jsonl');
  return existsSync(path) ? readFileSync(path, 'utf8').split('\n').length - 1 : 0;
}

async function until(condition: () => boolean, seconds = 30): Promise<void> {
  const end = performance.now() + seconds * 1000;
  while (!condition()) {
    assert.ok(performance.now() < end, `not within ${seconds} s`);
    await setTimeout(20);
  }
}

describe('minisequence train --gpus', () => {
  itOnCpuRanks('trains on two processes: one output, each file once', async () => {
    const { child, text, outDir } = await startRanks({ maxSteps: 4 });
    assert.deepEqual(await once(child, 'close'), [0, null], text.errors);
    assert.equal(text.out.match(/step 4\/4 /g)?.length, 1);
    const lines = await linesOf(outDir);
    assert.deepEqual(
      lines.map((line) => (line as { tokens: number }).tokens),
      [128, 128, 128, 128],
      'tokens of two micro-batches of 64',
    );
    assert.ok(existsSync(join(outDir, 'model.safetensors')));
  });

  itOnCpuRanks('stops both at SIGTERM, saves, and goes on', async () => {
    const { child, text, outDir, config } = await startRanks({ maxSteps: 5000 });
    await until(() => stepsDone(outDir) > 0);
    child.kill('SIGTERM');
    assert.deepEqual(await once(child, 'close'), [0, null], text.errors);
    const steps = await stepsIn(outDir);
    assert.equal(steps.length, 1);
    const done = Number(steps[0]!.split('-')[1]);
    const set = ['--resume', '--set', `maxSteps=${done + 2}`, `outDir=${outDir}`];
    const resumed = startCommand('train', '--config', config, '--gpus', '2', ...set);
    assert.deepEqual(await once(resumed, 'close'), [0, null]);
    assert.equal((await linesOf(outDir)).length, done + 2);
  });

  itOnCpuRanks('ends where a rank is killed, and names it and its step', async () => {
    const { child, text, outDir } = await startRanks({ maxSteps: 5000, checkpoint: { everySteps: 5 } });
    await until(() => stepsDone(outDir) > 7);
    const ranks = ranksOf(child);
    assert.equal(ranks.length, 2);
    process.kill(ranks[1]!, 'SIGKILL');
    const [code] = await once(child, 'close');
    assert.equal(code, 1);
    assert.match(text.errors, /RankError: rank 1 (at step \d+: )?its connection was closed: the process has ended/);
    assert.ok(!ranks.some(isAlive));
    assert.ok((await stepsIn(outDir)).length > 0);
  });

  itOnCpuRanks('leaves no process behind where its parent is killed', async () => {
    const { child, outDir } = await startRanks({ maxSteps: 5000 });
    await until(() => stepsDone(outDir) > 0);
    const ranks = ranksOf(child);
    child.kill('SIGKILL');
    await once(child, 'exit');
    await until(() => !ranks.some(isAlive));
  });

  it('trains in its own process where it is to start one rank', async () => {
    const config = join(newFolder(), 'config.yaml');
    await writeFile(config, stringify(tinyRun({ maxSteps: 5000, outDir: newFolder() })));
    const child = startCommand('train', '--config', config, '--gpus', '1');
    await once(child.stdout, 'data');
    assert.deepEqual(ranksOf(child), []);
    child.kill('SIGTERM');
    assert.deepEqual(await once(child, 'close'), [0, null]);
  });

  itOnCpuRanks("refuses numbers that are none, and 'all' without a GPU", async () => {
    for (const [number, message] of [
      ['0', /must be a positive integer or 'all'/],
      ['all', /--gpus all: device is 'cpu'; say how many processes/],
    ] as const) {
      const config = join(newFolder(), 'config.yaml');
      await writeFile(config, stringify(tinyRun({ maxSteps: 1 })));
      const child = startCommand('train', '--config', config, '--gpus', number);
      let errors = '';
      child.stderr.on('data', (data) => {
        errors += data;
      });
      const [code] = await once(child, 'close');
      assert.equal(code, 1);
      assert.match(errors, message);
    }
  });
});
