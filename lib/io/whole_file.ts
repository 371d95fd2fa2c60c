// Files that appear atomically: written under a random name beside their place, synced, renamed.
import { createHash, randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { type FileHandle, open, readdir, rename, unlink } from 'node:fs/promises';
import { hostname } from 'node:os';
import { basename, dirname, join } from 'node:path';

/** A file that is on the disk under a temporary name. */
export interface StagedFile {
  /** Gives it its name, for good: the folder is synced too. */
  commit(): Promise<void>;
  /** Removes it. */
  discard(): Promise<void>;
}

/** Identifies leftovers of this machine, as another one may share the folder. */
export const MACHINE = createHash('sha256').update(hostname()).digest('hex').slice(0, 8);
/** .NAME.MACHINE-PID-RANDOM.tmp */
const TEMPORARY = /^\..+\.([0-9a-f]{8})-(\d+)-[0-9a-f]{16}\.tmp$/;
/** Fails for an existing file and for a link. */
const NEW_FILE = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;

/** Writes and syncs a file under a temporary name. A failure leaves nothing, and names the path. */
export async function stageFile(path: string, write: (handle: FileHandle) => Promise<void>): Promise<StagedFile> {
  const random = randomBytes(8).toString('hex');
  const temporary = join(dirname(path), `.${basename(path)}.${MACHINE}-${process.pid}-${random}.tmp`);
  const discard = () => unlink(temporary).catch(() => {});
  const handle = await open(temporary, NEW_FILE);
  try {
    await write(handle);
    await handle.sync();
    await handle.close();
  } catch (error) {
    await handle.close().catch(() => {});
    await discard();
    throw withPath(path, error);
  }
  const commit = async () => {
    try {
      await rename(temporary, path);
    } catch (error) {
      await discard();
      throw error;
    }
    await syncFolder(dirname(path));
  };
  return { commit, discard };
}

export async function writeWhole(path: string, write: (handle: FileHandle) => Promise<void>): Promise<void> {
  const staged = await stageFile(path, write);
  await staged.commit();
}

export async function writeFully(handle: FileHandle, bytes: Uint8Array): Promise<void> {
  let done = 0;
  while (done < bytes.length) {
    const { bytesWritten } = await handle.write(bytes, done, Math.min(bytes.length - done, 2 ** 30));
    done += bytesWritten;
  }
}

/** So that names survive a loss of power, as the files behind them do. Some network file systems cannot. */
export async function syncFolder(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } catch (error) {
    if (!['EINVAL', 'ENOTSUP'].includes((error as NodeJS.ErrnoException).code ?? '')) throw error;
  } finally {
    await handle.close();
  }
}

/**
 * Removes temporary files that killed processes of this machine have left in a folder.
 * @param options.all those of processes that live, and of other machines, too: for who has locked the folder. @default false
 */
export async function removeLeftovers(folder: string, { all = false } = {}): Promise<void> {
  const names = await readdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return [];
    throw error;
  });
  for (const name of names) {
    const [, machine, pid] = TEMPORARY.exec(name) ?? [];
    if (machine && (all || (machine === MACHINE && !isRunning(Number(pid))))) {
      await unlink(join(folder, name)).catch(() => {});
    }
  }
}

/** Whether there is a process of this number on this machine. */
export function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH'; // EPERM: another user's
  }
}

/** The system's error of a write (ENOSPC, EIO) does not name the file. */
function withPath(path: string, error: unknown): unknown {
  const { code, message, path: named } = error as NodeJS.ErrnoException;
  if (!code || named || !/^E[A-Z0-9]+$/.test(code)) return error;
  return Object.assign(new Error(`${path}: cannot be written: ${message}`, { cause: error }), { code });
}
