// The command line, in a process of its own: from source, or the file that MST_TEST_COMMAND names, which starts faster. `npm test` names the
// one that it has just built, the program of a bundle its own.
import assert from 'node:assert/strict';
import { type ChildProcessWithoutNullStreams, spawn, spawnSync } from 'node:child_process';
import { env, execPath } from 'node:process';

const command = env.MST_TEST_COMMAND ? [env.MST_TEST_COMMAND] : ['--import=tsx', 'lib/cli/main.ts'];

/** What node is called with for `minisequence ...args`. */
export const commandLine = (...args: string[]): string[] => [...command, ...args];

/** Starts `minisequence ...args`. */
export function startCommand(...args: string[]): ChildProcessWithoutNullStreams {
  return spawn(execPath, [...command, ...args], { stdio: 'pipe' });
}

/** Runs `minisequence ...args` to a good end and returns what it printed. */
export function runCommand(args: string[], input = ''): string {
  const { status, stdout, stderr } = spawnSync(execPath, [...command, ...args], { input, encoding: 'utf8' });
  assert.equal(status, 0, stderr);
  return stdout;
}
