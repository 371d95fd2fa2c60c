// A run on two ranks, one of which is killed at any moment, again and again.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, readFileSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execPath } from 'node:process';
import { setTimeout } from 'node:timers/promises';
import { stringify } from 'yaml';
import { generator } from '../support/random.ts';
import { linesOf, modelOf, newFolder, tinyRun } from '../support/runs.ts';

const KILLS = 20;
/** Runs at the same time: after a kill they mostly wait for the other rank's end. */
const RUNS = 2;
/** Ranks must end within this time of a kill. */
const END_SECONDS = 30;

function childrenOf(pid: number): number[] {
  const path = `/proc/${pid}/task/${pid}/children`;
  return existsSync(path) ? readFileSync(path, 'utf8').trim().split(' ').filter(Boolean).map(Number) : [];
}

describe('a run on two ranks', () => {
  it(`that is killed ends each time, goes on, and has the losses of one that is not: ${KILLS} kills of ${RUNS} runs at once`, async () => {
    const options = { ...tinyRun({ maxSteps: 1200, checkpoint: { everySteps: 20 } }), threads: 1 };
    const start = async (outDir: string) => {
      const config = join(newFolder(), 'config.yaml');
      await writeFile(config, stringify({ ...options, outDir }));
      const args = ['dist/cli/main.js', 'train', '--config', config, '--gpus', '2', '--resume'];
      return spawn(execPath, args, { stdio: ['ignore', 'ignore', 'pipe'] });
    };
    const expected = newFolder();
    assert.deepEqual(await once(await start(expected), 'close'), [0, null]);

    /** Kills a rank of each life of one run, until its last steps are done; returns how often. */
    const killedRun = async (outDir: string, seed: number): Promise<number> => {
      const random = generator(seed);
      let numKilled = 0;
      for (let i = 0; i < KILLS / RUNS; i++) {
        const child = await start(outDir);
        let errors = '';
        child.stderr.on('data', (data) => {
          errors += data;
        });
        const end = once(child, 'close');
        let ranks: number[] = [];
        while (ranks.length < 2 && child.exitCode === null) {
          await setTimeout(10);
          ranks = childrenOf(child.pid!);
        }
        await setTimeout(random() * 1500);
        if (child.exitCode !== null) continue; // the last steps were done before
        numKilled += 1;
        process.kill(ranks[Number(random() < 0.5)]!, 'SIGKILL');
        const late = setTimeout(END_SECONDS * 1000, 'late', { ref: false });
        assert.notEqual(await Promise.race([end, late]), 'late', `after kill ${i}: ${errors}`);
        assert.ok(!ranks.some((rank) => existsSync(`/proc/${rank}`)), `kill ${i} left a rank behind`);
      }
      assert.deepEqual(await once(await start(outDir), 'close'), [0, null]);
      assert.deepEqual(await linesOf(outDir), await linesOf(expected));
      assert.deepEqual(await modelOf(outDir), await modelOf(expected));
      return numKilled;
    };
    const counts = await Promise.all(Array.from({ length: RUNS }, (_, i) => killedRun(newFolder(), 7 + i)));
    const numKilled = counts.reduce((sum, count) => sum + count);
    assert.ok(numKilled >= KILLS / 2, `${numKilled} of ${KILLS} came in time`);
  });
});
