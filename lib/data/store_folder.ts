// A folder that appears under its name atomically.
import { randomBytes } from 'node:crypto';
import { mkdir, readdir, rename, rm, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { isRunning, MACHINE, syncFolder } from '../io/whole_file.ts';

/** NAME.MACHINE-PID-RANDOM.tmp, as processes that were killed leave them; a former version's were NAME.PID.tmp. */
const TEMPORARY = /^[0-9a-f]{16}\.(?:([0-9a-f]{8})-(\d+)-[0-9a-f]{16}|\d+)\.tmp$/;
/** Milliseconds by which a file server's clock may be behind. */
const CLOCK_SKEW = 10_000;

/**
 * Fills a new folder under a temporary name and then gives it its own. A failure leaves nothing behind.
 * @param isWhole whether an existing folder of that name may stay: another caller or process may have made it meanwhile
 */
export async function makeFolder(
  folder: string,
  fill: (temporary: string) => Promise<void>,
  isWhole: () => Promise<boolean>,
): Promise<void> {
  const parent = dirname(folder);
  await mkdir(parent, { recursive: true });
  await removeLeftovers(parent);
  const temporary = `${folder}.${MACHINE}-${process.pid}-${randomBytes(8).toString('hex')}.tmp`;
  await mkdir(temporary);
  try {
    await fill(temporary);
    await syncFolder(temporary);
    if (!(await renamed(temporary, folder)) && !(await isWhole())) {
      await rm(folder, { recursive: true });
      await rename(temporary, folder);
    }
    await syncFolder(parent);
  } finally {
    await rm(temporary, { recursive: true, force: true });
  }
}

/** false: there is such a folder already. */
async function renamed(from: string, to: string): Promise<boolean> {
  try {
    await rename(from, to);
    return true;
  } catch (error) {
    if (['ENOTEMPTY', 'EEXIST'].includes((error as NodeJS.ErrnoException).code ?? '')) return false;
    throw error;
  }
}

async function removeLeftovers(parent: string): Promise<void> {
  for (const name of await readdir(parent)) {
    const [found, machine, pid] = TEMPORARY.exec(name) ?? [];
    const path = join(parent, name);
    const isLeft = found && (!machine || (machine === MACHINE && (await isAbandoned(path, Number(pid)))));
    if (isLeft) await rm(path, { recursive: true, force: true });
  }
}

/** Whether its process has ended: no process has this id, or it started later (a container's first is always 1). */
async function isAbandoned(path: string, pid: number): Promise<boolean> {
  if (pid !== process.pid) return !isRunning(pid);
  const made = await stat(path).catch(() => null);
  return made !== null && made.mtimeMs < Date.now() - process.uptime() * 1000 - CLOCK_SKEW;
}
