// The native tests: CPU ops, and the CUDA kernels under emulation; with sanitizers they are among the longer tests.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { runNativeTests } from '../support/native_tests.ts';

describe('kernels', () => {
  it('have the same code on every architecture', () => {
    // A body behind #if would be empty elsewhere and do nothing, silently. What needs one architecture is to be chosen by the host, as
    // clusters of more than one block are, of which code that does not know them is a cluster of its own.
    const files = readdirSync('native', { recursive: true, encoding: 'utf8' }).filter((file) => /\.(cu|h)$/.test(file));
    const conditional = files.filter((file) => /__CUDA_ARCH/.test(readFileSync(join('native', file), 'utf8')));
    assert.deepEqual(conditional, ['cuda/common/cluster.h']);
  });
});

describe('devices', () => {
  it('have no thread-local state: what commands share is in the context', () => {
    const files = readdirSync('native', { recursive: true, encoding: 'utf8' }).filter((file) =>
      /\.(cu|cpp|h)$/.test(file),
    );
    const hidden = files.filter((file) => /\bthread_local\b/.test(readFileSync(join('native', file), 'utf8')));
    assert.deepEqual(hidden, []);
  });
});

describe('native tests', function () {
  this.timeout(240_000);
  it('pass', () => runNativeTests('tests', '*'));
});
