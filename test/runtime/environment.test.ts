// Processes in environments that lack something: a home, addresses, memory. They use dist/, as users do.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

describe('a user without a home', () => {
  it('can open the CPU, and doctor reports it', async () => {
    const code = `import os from 'node:os'; import { syncBuiltinESMExports } from 'node:module';
      os.homedir = () => { throw new Error('uv_os_homedir returned ENOENT'); };
      syncBuiltinESMExports();`;
    const { HOME, XDG_CACHE_HOME, ...env } = process.env;
    const node = (...args: string[]) =>
      promisify(execFile)(process.execPath, ['--import', `data:text/javascript,${encodeURIComponent(code)}`, ...args], {
        env,
      });
    const program = `import { zeros } from '${new URL('../../dist/index.js', import.meta.url)}';
      console.log((await zeros([2], { device: 'cpu' }).data()).join());`;
    assert.equal((await node('--input-type=module', '-e', program)).stdout, '0,0\n');
    assert.match((await node('dist/cli/main.js', 'doctor')).stdout, /^device +cpu, memoryLimit/m);
  });
});

describe('a limit on addresses', () => {
  const run = async (program: string, limitKiB: number | 'unlimited') => {
    const code = `import * as ms from '${new URL('../../dist/index.js', import.meta.url)}';
      import { readdirSync, readFileSync } from 'node:fs';
      import { execFileSync } from 'node:child_process';
      ${program}`;
    const command = `ulimit -v ${limitKiB} && exec "$0" --input-type=module -e "$1"`;
    return (await promisify(execFile)('bash', ['-c', command, process.execPath, code])).stdout;
  };
  const limit = 2 ** 26; // 64 GiB

  it('leaves a device what it allows, whatever memoryLimit says', async () => {
    const out = await run(
      `for (const memoryLimit of [2 ** 30, undefined, 2 ** 38, Infinity]) {
        const device = ms.openDevice('cpu', { threads: 1, memoryLimit });
        console.log(device.memoryLimit <= 2 ** 36, (await ms.zeros([2], { device }).data()).join());
        device.close();
      }`,
      limit,
    );
    assert.equal(out, 'true 0,0\n'.repeat(4));
  });

  it('leaves no thread behind where a device cannot be opened, and the error names it', async () => {
    const out = await run(
      `const numThreads = () => readdirSync('/proc/self/task').length;
      const before = numThreads();
      const { addon } = await import('${new URL('../../dist/runtime/native.js', import.meta.url)}');
      const { reserve } = addon();
      addon().reserve = () => { throw Object.assign(new Error('no addresses'), { code: 'OUT_OF_MEMORY' }); };
      for (let i = 0; i < 5; i++) {
        try { ms.openDevice('cpu', { threads: 1, memoryLimit: 2 ** 30 }); } catch ({ message }) { console.log(message); }
      }
      addon().reserve = reserve;
      console.log(numThreads() - before, 'more threads');`,
      limit,
    );
    const message =
      'cpu: the address space of this process is limited (ulimit -v); the arena needs as much of it as its memoryLimit, 1.00 GiB';
    assert.equal(out, `${`${message}: no addresses\n`.repeat(5)}0 more threads\n`);
  });

  it('is not reached by 200 devices that are open at once', async () => {
    const out = await run(
      `const devices = Array.from({ length: 200 }, () => ms.openDevice('cpu', { threads: 1, memoryLimit: 2 ** 30 }));
      console.log(devices.length);
      for (const device of devices) device.close();`,
      'unlimited',
    );
    assert.equal(out, '200\n');
  });

  it('is an OutOfMemoryError where the copy of a write does not fit, and the device goes on', async () => {
    const out = await run(
      `const device = ms.openDevice('cpu', { threads: 1, memoryLimit: 2 ** 28 });
      const x = ms.empty([2 ** 25], { device });
      const data = new Float32Array(2 ** 25);
      await device.synchronize();
      const addresses = 1024 * Number(/VmSize:\\s+(\\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1]);
      const allow = (bytes) => execFileSync('prlimit', ['--pid', String(process.pid), '--as=' + bytes + ':unlimited']);
      allow(addresses + 64e6);
      try { x.write(data); } catch ({ name, code, message, requestedBytes }) { console.log(name, code, requestedBytes, message); }
      allow('unlimited');
      console.log((await ms.tensor([1, 2, 3], { device }).data()).join());`,
      'unlimited',
    );
    assert.equal(
      out,
      'OutOfMemoryError OUT_OF_MEMORY 134217728 write: tensor float32(33554432): the host has no memory left for 128.00 MiB more\n1,2,3\n',
    );
  });
});
