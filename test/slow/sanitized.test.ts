// The native tests with AddressSanitizer and UBSan, and the queue under ThreadSanitizer.
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { runNativeTests } from '../support/native_tests.ts';
import { newFolder } from '../support/runs.ts';

describe('native tests with sanitizers', () => {
  // arithmetic alone is slow there
  it('pass', () => runNativeTests('sanitized', '-Math.*'));

  it('find no race in the queue', async () => {
    const binary = join(newFolder(), 'queue_test');
    const sources = ['test/native/queue_test.cpp', 'native/runtime/queue.cpp'];
    const flags = ['-std=c++20', '-O1', '-g1', '-fsanitize=thread', '-fopenmp', '-pthread', '-I', 'native'];
    await promisify(execFile)('c++', [...flags, ...sources, '-lgtest', '-lgtest_main', '-o', binary]);
    await promisify(execFile)(binary, ['--gtest_brief=1'], {
      env: { ...process.env, TSAN_OPTIONS: 'halt_on_error=1' },
    });
  });
});
