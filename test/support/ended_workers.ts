// Workers that are ended in the middle of calls of the addon. In a process of its own, which an abort would end.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

const index = new URL('../../dist/index.js', import.meta.url).href;
const native = new URL('../../dist/runtime/native.js', import.meta.url).href;

/** Every call of the boundary, again and again. */
const worker = `
  import * as ms from '${index}';
  import { addon } from '${native}';
  import { parentPort, workerData } from 'node:worker_threads';
  const quiet = (promise) => void promise.catch(() => {});
  const shared = ms.zeros([256, 256]);
  parentPort.postMessage('ready');
  if (workerData.how === 'throw') setTimeout(() => { throw new Error('user bug'); }, workerData.after);
  if (workerData.how === 'exit') setTimeout(() => process.exit(3), workerData.after);
  for (let round = 0; ; round++) {
    for (const debug of [false, true]) {
      const device = ms.openDevice('cpu', { threads: 1, debug, memoryLimit: 2 ** 26 });
      const on = { device };
      ms.tidy(() => {
        const x = ms.tensor(new Float32Array(1024), { shape: [32, 32], ...on });
        for (let i = 0; i < 20; i++) ms.linear(x, x);
        ms.attention(x, x, x, { T: 32, headSize: 32 });
        quiet(ms.embedding(x, ms.tensor(Int32Array.of(99), on)).data());
        quiet(x.data());
        quiet(ms.scale(x, round).item());
        try { ms.linear(x, ms.zeros([3, 3], on)); } catch {}
        try { addon().fill(device.id, x.view, 'one'); } catch {}
        try { ms.zeros([2 ** 25], on); } catch {}
      });
      quiet(device.synchronize());
      addon().available_bytes(device.id);
      addon().describe_cuda();
      if (round % 3 === 0) await device.synchronize();
      device.close();
    }
    ms.linear(shared, shared).dispose();
    quiet(shared.data());
    if (round % 2 === 0) await shared.data();
  }`;

/** Ends so many workers, two at a time and each at another moment, and asks for what the main thread computes afterwards. */
export async function endWorkers(how: 'terminate' | 'throw' | 'exit', count: number): Promise<void> {
  const code = `
    import { Worker } from 'node:worker_threads';
    const url = new URL('data:text/javascript,' + encodeURIComponent(${JSON.stringify(worker)}));
    let number = 0;
    const endEach = async () => {
      while (number++ < ${count}) {
        const after = Math.random() * 60;
        const worker = new Worker(url, { workerData: { how: '${how}', after } });
        worker.on('error', ({ message }) => { if (message !== 'user bug') throw new Error(message); });
        const ended = new Promise((done) => worker.once('exit', done));
        await new Promise((done) => worker.once('message', done));
        if ('${how}' === 'terminate') setTimeout(() => worker.terminate(), after);
        await ended;
      }
    };
    await Promise.all([endEach(), endEach()]);
    const ms = await import('${index}');
    console.log((await ms.scale(ms.tensor([1, 2, 3]), 2).data()).join());`;
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', code]);
  assert.equal(stdout, '2,4,6\n');
}
