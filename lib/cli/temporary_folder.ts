// A folder for what a command needs while it runs.
import { mkdtempSync, rmSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** Gives `work` a new folder that no other user can read, and removes it afterwards, also where a signal ends the process. */
export async function withTemporaryFolder<T>(work: (folder: string) => Promise<T>): Promise<T> {
  let folder = '';
  const onSignal = (signal: NodeJS.Signals) => {
    rmSync(folder, { recursive: true, force: true, maxRetries: 3 });
    ignoreSignals();
    process.kill(process.pid, signal);
  };
  const ignoreSignals = () => {
    for (const signal of SIGNALS) process.off(signal, onSignal);
  };
  for (const signal of SIGNALS) process.on(signal, onSignal);
  try {
    // A signal's listeners run between two turns of the event loop: none finds the folder made and its name unknown.
    folder = mkdtempSync(join(tmpdir(), 'minisequence-'));
    return await work(folder);
  } finally {
    if (folder !== '') await rm(folder, { recursive: true, force: true });
    ignoreSignals();
  }
}
