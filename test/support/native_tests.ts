// The native tests: CPU ops, and the CUDA kernels under emulation.
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

/**
 * Runs those that match; throws what they print where one fails.
 * @param build 'tests', or 'sanitized': with AddressSanitizer and UBSan
 * @param filter GoogleTest's
 */
export async function runNativeTests(build: 'tests' | 'sanitized', filter: string): Promise<void> {
  const args = ['--gtest_brief=1', `--gtest_filter=${filter}`];
  try {
    await promisify(execFile)(`build/${build}/minisequence_tests`, args, { maxBuffer: 2 ** 26 });
  } catch (error) {
    const { stdout = '', stderr = '' } = error as { stdout?: string; stderr?: string };
    throw new Error(`${stdout}\n${stderr}`.trim().slice(-4000) || String(error));
  }
}
