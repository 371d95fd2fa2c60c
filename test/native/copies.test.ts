// Memory of the host and copies beside commands, with CUDA's runtime replaced by one of our own. It runs copies or commands as late as events
// allow.
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { newFolder } from '../support/runs.ts';

const include = join(process.env.CUDA_PATH ?? '/usr/local/cuda', 'include');

/** Compiles a test with the sources that it needs, as C++, and runs it. */
function passes(test: string, ...sources: string[]): void {
  const program = join(newFolder(), test);
  const flags = ['-std=c++20', '-Inative', `-isystem${include}`, '-o', program];
  const fakes = [`test/native/fakes/${test}.cpp`, 'test/native/fakes/cuda_runtime.cpp'];
  const libraries = ['-lgtest', '-lgtest_main', '-lpthread', '-ldl'];
  execFileSync('c++', [...flags, '-xc++', ...sources, ...fakes, '-xnone', ...libraries], { stdio: 'pipe' });
  execFileSync(program, ['--gtest_brief=1'], { stdio: 'pipe', encoding: 'utf8' });
}

describe("on CUDA (needs its toolkit's headers)", function () {
  this.timeout(60_000);
  const test = existsSync(join(include, 'cuda_runtime.h')) ? it : it.skip;
  test('copies beside commands wait for commands and are waited for', () => {
    passes('copies_test', 'native/cuda/copies.cu');
  });
  test('memory of the host is there before it is pinned, and refused with both numbers', () => {
    const cuda = ['native/cuda/memory.cu', 'native/cuda/libraries/driver.cu', 'native/cuda/libraries/library.cu'];
    passes('host_memory_test', ...cuda, 'native/cpu/memory.cpp', 'native/cpu/host_pages.cpp');
  });
});
