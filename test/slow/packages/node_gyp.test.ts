// `node-gyp rebuild` in a clone: what tools run that know binding.gyp and nothing of CMake. The clone has a build folder of another place,
// as a checkout has that was moved or copied.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { newFolder } from '../../support/runs.ts';

const run = promisify(execFile);

describe('node-gyp rebuild', () => {
  it('builds an addon that loads, after a build elsewhere too, and downloads nothing', async () => {
    const clone = join(newFolder(), 'clone');
    await run('git', ['clone', '--quiet', '.', clone]);
    symlinkSync(resolve('node_modules'), join(clone, 'node_modules'));
    mkdirSync(join(clone, 'build', 'cmake'), { recursive: true });
    writeFileSync(join(clone, 'build', 'cmake', 'CMakeCache.txt'), 'CMAKE_HOME_DIRECTORY:INTERNAL=/somewhere/else\n');
    const gyp = [join('node_modules', 'node-gyp', 'bin', 'node-gyp.js'), 'rebuild'];
    // node-gyp asks for Node's headers even where no target uses them: those beside this node, and no address to get others from.
    gyp.push('--nodedir', dirname(dirname(process.execPath)), '--dist-url', 'http://localhost:9');
    const { stderr } = await run(process.execPath, gyp, { cwd: clone, maxBuffer: 2 ** 26 });
    assert.match(stderr, /gyp info ok/);

    const load = "console.log(typeof require('./build/Release/minisequence.node').open_device)";
    const { stdout } = await run(process.execPath, ['-e', load], { cwd: clone });
    assert.equal(stdout, 'function\n');
  });
});
