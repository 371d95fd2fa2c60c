// Copies beside commands, with CUDA's runtime replaced by one that runs copies or commands as late as events allow.
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { newFolder } from '../support/runs.ts';

const include = join(process.env.CUDA_PATH ?? '/usr/local/cuda', 'include');

describe('copies beside commands on CUDA', function () {
  this.timeout(60_000);
  const test = existsSync(join(include, 'cuda_runtime.h')) ? it : it.skip;
  test("wait for commands and are waited for (needs the CUDA toolkit's headers)", () => {
    const program = join(newFolder(), 'copies_test');
    const flags = ['-std=c++20', '-Inative', `-isystem${include}`, '-o', program];
    const sources = [
      'native/cuda/copies.cu',
      'test/native/fakes/copies_test.cpp',
      'test/native/fakes/cuda_runtime.cpp',
    ];
    const libraries = ['-lgtest', '-lgtest_main', '-lpthread'];
    execFileSync('c++', [...flags, '-xc++', ...sources, '-xnone', ...libraries], { stdio: 'pipe' });
    execFileSync(program, ['--gtest_brief=1'], { stdio: 'pipe', encoding: 'utf8' });
  });
});
