// The native tests: CPU ops, and the CUDA kernels under emulation.
import { execFile } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { env } from 'node:process';
import { promisify } from 'node:util';

/**
 * Runs those that match, in as many processes as there are cores, up to 4; throws what they print where one fails.
 * @param build 'tests', or 'sanitized': with AddressSanitizer and UBSan
 * @param filter GoogleTest's
 */
export async function runNativeTests(build: 'tests' | 'sanitized', filter: string): Promise<void> {
  const numShards = Math.min(4, availableParallelism());
  await Promise.all(
    Array.from({ length: numShards }, (_, shard) =>
      runShard(build, filter, { GTEST_TOTAL_SHARDS: String(numShards), GTEST_SHARD_INDEX: String(shard) }),
    ),
  );
}

async function runShard(build: string, filter: string, shard: Record<string, string>): Promise<void> {
  const args = ['--gtest_brief=1', `--gtest_filter=${filter}`];
  try {
    const options = { maxBuffer: 2 ** 26, env: { ...env, ...shard } };
    await promisify(execFile)(`build/${build}/minisequence_tests`, args, options);
  } catch (error) {
    const { stdout = '', stderr = '' } = error as { stdout?: string; stderr?: string };
    throw new Error(`${stdout}\n${stderr}`.trim().slice(-4000) || String(error));
  }
}
