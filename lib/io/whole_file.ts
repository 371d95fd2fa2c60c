// Writes files atomically: under a random name in the same folder, then synced and renamed.
import { createHash, randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { type FileHandle, open, readdir, rename, unlink } from 'node:fs/promises';
import { hostname } from 'node:os';
import { basename, dirname, join } from 'node:path';

/** A complete file under a temporary name. */
export interface StagedFile {
  /** Renames it to its final name and syncs the folder. */
  commit(): Promise<void>;
  /** Removes it. */
  discard(): Promise<void>;
}

/** Identifies leftovers of this machine; other machines may share the folder. */
export const MACHINE = createHash('sha256').update(hostname()).digest('hex').slice(0, 8);
/** .NAME.MACHINE-PID-RANDOM.tmp */
const TEMPORARY = /^\..+\.([0-9a-f]{8})-(\d+)-[0-9a-f]{16}\.tmp$/;
/** Open flags: fails if there is a file or a link already. */
const NEW_FILE = constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL | constants.O_NOFOLLOW;

/** Writes and syncs a file under a temporary name. A failure leaves nothing, and the error names the path. */
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

/** Syncs a folder, so that names survive a power failure, as the files' contents do. Some network file systems cannot do this. */
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
 * Removes temporary files of killed processes of this machine from a folder.
 * @param options.all also those of running processes and of other machines; only for the holder of the folder's lock. @default false
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

/** Whether a process with this id is running on this machine. */
export function isRunning(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'ESRCH'; // EPERM: it belongs to another user
  }
}

/** Adds the file's name to a write error of the system (ENOSPC, EIO), which lacks it. */
function withPath(path: string, error: unknown): unknown {
  const { code, message, path: named } = error as NodeJS.ErrnoException;
  if (!code || named || !/^E[A-Z0-9]+$/.test(code)) return error;
  return Object.assign(new Error(`${path}: cannot be written: ${message}`, { cause: error }), { code });
}
