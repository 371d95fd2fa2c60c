// The native tests: CPU ops, and the CUDA kernels under emulation, plain and with AddressSanitizer and UBSan.
import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';

describe('kernels', () => {
  it('have the same code on every architecture', () => {
    // A body behind #if would be empty elsewhere and do nothing, silently. What needs one architecture is to be chosen by the host.
    const files = readdirSync('native', { recursive: true, encoding: 'utf8' }).filter((file) => /\.(cu|h)$/.test(file));
    const conditional = files.filter((file) => /__CUDA_ARCH/.test(readFileSync(join('native', file), 'utf8')));
    assert.deepEqual(conditional, []);
  });
});

describe('native tests', () => {
  for (const build of ['tests', 'sanitized']) {
    it(`pass: build/${build}`, async function () {
      this.timeout(240_000);
      const arguments_ = ['--gtest_brief=1'];
      if (build === 'sanitized') arguments_.push('--gtest_filter=-Math.*'); // arithmetic alone, slow there
      try {
        await promisify(execFile)(`build/${build}/minisequence_tests`, arguments_, { maxBuffer: 2 ** 26 });
      } catch (error) {
        const { stdout = '', stderr = '' } = error as { stdout?: string; stderr?: string };
        throw new Error(`${stdout}\n${stderr}`.trim().slice(-4000) || String(error));
      }
    });
  }
});
