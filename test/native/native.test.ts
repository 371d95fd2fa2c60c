// The native tests: CPU ops, and the CUDA kernels under emulation, plain and with AddressSanitizer and UBSan.
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

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
