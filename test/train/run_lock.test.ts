// One run at a time in a folder, and none kept out by one that is gone.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseConfig, train } from '../../lib/index.ts';
import { RunLock } from '../../lib/train/run_lock.ts';
import { newFolder, tinyRun } from '../support/runs.ts';

const lockOf = (folder: string) => join(folder, '.lock');

/** What a lock of ours says, with some of it changed. */
async function lockWith(folder: string, changes: object): Promise<string> {
  const lock = await RunLock.take(folder);
  const holder = JSON.parse(await readFile(lockOf(folder), 'utf8'));
  await lock.release();
  return `${JSON.stringify({ ...holder, ...changes })}\n`;
}

describe("the lock of a run's folder", () => {
  it('is held once, in one process too, and leaves nothing behind', async () => {
    const folder = newFolder();
    const lock = await RunLock.take(folder);
    await assert.rejects(
      RunLock.take(folder),
      new RegExp(`^Error: ${folder}: outDir is in use by process ${process.pid} `),
    );
    await lock.release();
    await (await RunLock.take(folder)).release();
    assert.deepEqual(await readdir(folder), []);
  });

  it('that has become another run’s is not released by who lost it', async () => {
    const folder = newFolder();
    const lock = await RunLock.take(folder);
    const other = await lockWith(newFolder(), {});
    await writeFile(lockOf(folder), other);
    await lock.release();
    assert.equal(await readFile(lockOf(folder), 'utf8'), other);
  });

  it('goes to one of many that want it at once', async () => {
    const folder = newFolder();
    await writeFile(lockOf(folder), await lockWith(folder, { start: '1' }));
    const taken = await Promise.allSettled(Array.from({ length: 8 }, () => RunLock.take(folder)));
    const held = taken.flatMap((result) => (result.status === 'fulfilled' ? [result.value] : []));
    assert.equal(held.length, 1);
    await held[0]!.release();
    assert.deepEqual(await readdir(folder), []);
  });

  it('of a process that has ended is nobody’s: killed, not yet asked for its end, or its number taken by another', async () => {
    const folder = newFolder();
    const child = spawn('sleep', ['100']);
    const start = (await readFile(`/proc/${child.pid}/stat`, 'utf8')).split(' ')[21];
    await writeFile(lockOf(folder), await lockWith(folder, { pid: child.pid, start }));
    await assert.rejects(RunLock.take(folder), new RegExp(`in use by process ${child.pid} `));
    await writeFile(lockOf(folder), await lockWith(newFolder(), { pid: child.pid, start: `${start}0` }));
    await (await RunLock.take(folder)).release();
    child.kill('SIGKILL');
    await once(child, 'exit');
    await writeFile(lockOf(folder), await lockWith(newFolder(), { pid: child.pid, start }));
    await (await RunLock.take(folder)).release();
  });

  it('of another machine or thread is held while it beats', async () => {
    const folder = newFolder();
    const thread = await lockWith(folder, { thread: 99 }); // a worker that was ended in the middle
    await writeFile(lockOf(folder), thread);
    await (await RunLock.take(folder, { watchMs: 100 })).release();
    const other = await lockWith(folder, { boot: 'another', host: 'elsewhere' });
    await writeFile(lockOf(folder), other);
    let beats = 0;
    const beating = setInterval(() => {
      beats += 1;
      writeFileSync(lockOf(folder), other.replace(/0"}\n$/, `${beats}"}\n`));
    }, 50);
    await assert.rejects(RunLock.take(folder, { watchMs: 1000 }), /in use by process \d+ on elsewhere/);
    clearInterval(beating);
    await (await RunLock.take(folder, { watchMs: 100 })).release();
  });

  it('that was half written when its process was killed is nobody’s', async () => {
    const folder = newFolder();
    for (const content of ['', '{"pid":1']) {
      await writeFile(lockOf(folder), content);
      await (await RunLock.take(folder, { watchMs: 100 })).release();
    }
  });
});

describe('two runs in one folder', () => {
  it('the second is refused before its first step; the folder is free however the first ends', async () => {
    const config = parseConfig(tinyRun({ maxSteps: 5, checkpoint: { everySteps: 1 } }));
    const steps = [0, 0];
    const runs = await Promise.allSettled([0, 1].map((i) => train(config, { onStep: () => (steps[i]! += 1) })));
    const refused = runs.findIndex(({ status }) => status === 'rejected');
    assert.match(String((runs[refused] as PromiseRejectedResult).reason), /outDir is in use by process/);
    assert.deepEqual([steps[refused], steps[1 - refused]], [0, 5]);
    await assert.rejects(train(config), /holds checkpoints of an earlier run/);
    const { metrics } = await train({ ...config, maxSteps: 6 }, { resume: true });
    assert.equal(metrics.length, 6);
    assert.ok(!(await readdir(config.outDir)).includes('.lock'));
  });
});
