// minisequence report: report.html of a run, made anew from its files.
import { spawn } from 'node:child_process';
import { setTimeout as sleep } from 'node:timers/promises';
import { statusOf, writeReport } from '../report/run_report.ts';
import { RunLock } from '../train/run_lock.ts';

export interface ReportArguments {
  open: boolean;
  follow: boolean;
}

/** How often --follow looks at a run, in seconds. */
const FOLLOW_SECONDS = 5;

/** Writes the report and prints its path; with `follow` again and again, until the run ends. */
export async function runReport(folder: string, { open, follow }: ReportArguments): Promise<void> {
  for (let round = 0; ; round++) {
    const isUnderWay = await RunLock.isBeating(folder);
    const again = follow && isUnderWay;
    const { path, run } = await writeReport(folder, { isUnderWay, refreshSeconds: again ? FOLLOW_SECONDS : undefined });
    if (round === 0) console.log(path);
    if (round === 0 && open) openFile(path);
    if (follow) console.log(statusOf(run, isUnderWay));
    if (!again) return;
    await sleep(FOLLOW_SECONDS * 1000);
  }
}

/** Opens a file with what the system opens it with. */
function openFile(path: string): void {
  const [command, ...args] =
    process.platform === 'darwin' ? ['open'] : process.platform === 'win32' ? ['cmd', '/c', 'start', ''] : ['xdg-open'];
  const child = spawn(command!, [...args, path], { stdio: 'ignore', detached: true });
  child.once('error', (error) => console.error(`${path}: cannot be opened: ${error.message}`));
  child.unref();
}
