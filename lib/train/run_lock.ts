// One run at a time in a folder: a lock file that says who holds it.
import { randomBytes } from 'node:crypto';
import { type FileHandle, open, readFile, readlink, stat, unlink } from 'node:fs/promises';
import { hostname } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { threadId } from 'node:worker_threads';

const NAME = '.lock';
/** Exists while the lock of a dead holder is being removed, which takes milliseconds. */
const REMOVAL = '.lock.removal';
const REMOVAL_MS = 10_000;
/** How often the holder writes a beat, and how long a holder that cannot be queried is watched for one, in milliseconds. */
const BEAT_MS = 3000;
const WATCH_MS = 5 * BEAT_MS;
/** Digits of the counter, so that a beat overwrites the one before. */
const BEAT_DIGITS = 12;

/** Who holds a lock. A process id is one process only together with its start time, its namespace and the machine's boot. */
interface Holder {
  pid: number;
  start: string;
  namespace: string;
  boot: string;
  host: string;
  /** Of the process. */
  thread: number;
  nonce: string;
}

/** Exclusive use of a folder until it is released. */
export class RunLock {
  readonly #folder: string;
  readonly #handle: FileHandle;
  readonly #timer: NodeJS.Timeout;
  readonly #nonce: string;

  private constructor(folder: string, handle: FileHandle, holder: Holder) {
    this.#folder = folder;
    this.#handle = handle;
    this.#nonce = holder.nonce;
    let beat = 0;
    this.#timer = setInterval(() => {
      beat += 1;
      this.#handle.write(contentOf(holder, beat), 0).catch(() => {}); // whatever writes to a failing disk next reports it
    }, BEAT_MS).unref();
  }

  /**
   * @param options.watchMs how long a holder on another machine, or in another container, is watched for a beat
   * @throws Error where another run is in the folder, in this process or another
   */
  static async take(folder: string, { watchMs = WATCH_MS } = {}): Promise<RunLock> {
    const path = join(folder, NAME);
    const me = await holderOf(process.pid);
    for (;;) {
      const handle = await create(path);
      if (handle) {
        try {
          await handle.write(contentOf(me, 0), 0);
          return new RunLock(folder, handle, me);
        } catch (error) {
          await handle.close();
          await unlink(path);
          throw new Error(`${path}: cannot be written: ${(error as Error).message}`, { cause: error });
        }
      }
      const content = await readLock(path);
      if (content === null) continue; // released meanwhile
      if (await isHeld(path, content, me, watchMs)) {
        const { pid, host } = parse(content) ?? { pid: 'unknown', host: 'unknown' };
        throw new Error(
          `${folder}: outDir is in use by process ${pid} on ${host}; wait for its end, or choose another outDir`,
        );
      }
      await takeAway(folder, path, content);
    }
  }

  /** Whether a run holds a folder, by the time of its last beat: for those who only look on. */
  static async isBeating(folder: string): Promise<boolean> {
    const found = await stat(join(folder, NAME)).catch(() => null);
    return found !== null && Date.now() - found.mtimeMs < WATCH_MS;
  }

  async release(): Promise<void> {
    clearInterval(this.#timer);
    const path = join(this.#folder, NAME);
    const content = await readLock(path).catch(() => null);
    if (content !== null && parse(content)?.nonce === this.#nonce) await unlink(path).catch(() => {}); // it may be another's by now
    await this.#handle.close();
  }
}

/** null where the file is there. */
async function create(path: string): Promise<FileHandle | null> {
  try {
    return await open(path, 'wx');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EEXIST') return null;
    throw error;
  }
}

async function readLock(path: string): Promise<string | null> {
  try {
    return await readFile(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw error;
  }
}

const contentOf = (holder: Holder, beat: number) =>
  `${JSON.stringify({ ...holder, beat: String(beat).padStart(BEAT_DIGITS, '0') })}\n`;

/** null: half written, or no lock. */
function parse(content: string): Holder | null {
  try {
    return JSON.parse(content) as Holder;
  } catch {
    return null;
  }
}

/** Asks the system if the holder is one of its processes; otherwise waits for a beat. */
async function isHeld(path: string, content: string, me: Holder, watchMs: number): Promise<boolean> {
  const holder = parse(content);
  if (holder && holder.boot === me.boot && holder.namespace === me.namespace) {
    const start = await startOf(holder.pid);
    const isKnown = start !== UNKNOWN && holder.start !== UNKNOWN;
    if (start === null || (isKnown && start !== holder.start)) return false;
    if (isKnown && (holder.pid !== me.pid || holder.thread === me.thread)) return true;
    // Another thread of this process, which may have been terminated, or a system that does not give start times.
  }
  for (let waited = 0; waited < watchMs; waited += watchMs / 10) {
    await sleep(watchMs / 10);
    const now = await readLock(path);
    if (now !== content) return now !== null && parse(now) !== null;
  }
  return false;
}

/**
 * Removes the lock of a dead holder, unless another process has done so. Only one process at a time compares and removes: otherwise it
 * could remove the lock that a third has made in between.
 */
async function takeAway(folder: string, path: string, content: string): Promise<void> {
  const removal = join(folder, REMOVAL);
  const handle = await create(removal);
  if (!handle) {
    const { mtimeMs } = await stat(removal).catch(() => ({ mtimeMs: Date.now() }));
    if (Date.now() - mtimeMs > REMOVAL_MS) await unlink(removal).catch(() => {}); // of a process that was killed meanwhile
    await sleep(5);
    return;
  }
  try {
    if ((await readLock(path)) === content) await unlink(path);
  } finally {
    await unlink(removal);
    await handle.close();
  }
}

async function holderOf(pid: number): Promise<Holder> {
  const text = async (path: string) => (await readFile(path, 'utf8').catch(() => '')).trim();
  return {
    pid,
    start: (await startOf(pid)) ?? UNKNOWN,
    namespace: await readlink('/proc/self/ns/pid').catch(() => ''),
    boot: await text('/proc/sys/kernel/random/boot_id'),
    host: hostname(),
    thread: threadId,
    nonce: randomBytes(8).toString('hex'),
  };
}

/** For a process whose start time the system does not give. */
const UNKNOWN = 'unknown';

/** Clock ticks from the boot to a process's start; null if there is no such process, or it is a zombie. */
async function startOf(pid: number): Promise<string | null> {
  const stat = await readFile(`/proc/${pid}/stat`, 'utf8').catch(() => null);
  if (stat === null) return isGone(pid) ? null : UNKNOWN;
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' '); // from field 3 on; the name before may hold anything
  return fields[0] === 'Z' || fields[0] === 'X' ? null : fields[19]!;
}

function isGone(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH';
  }
}
