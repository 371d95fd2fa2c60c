// Reads rows of a parquet file, on a thread with limits.
import { stat } from 'node:fs/promises';
import { Worker } from 'node:worker_threads';
import { threadUrl } from '../../io/thread_url.ts';
import { bytesOf } from './bytes.ts';
import { rowOf } from './json_lines.ts';
import type { Row } from './record.ts';

/** Time limit for the next page in milliseconds, and more for each byte of the file, as pages may be large. */
const HANGS_MS = 4000;
const HANGS_MS_PER_BYTE = 1 / 5000;
/** Time limit for the start of the thread in milliseconds. */
const START_MS = 30_000;
/** Milliseconds between two checks of the thread. */
const LOOK_MS = 200;
/** Limit of the thread's heap in MiB; it holds one row group. */
const MAX_HEAP = 4096;

type Answer = { batch: string[] } | { isEnd: true } | { error: string };

/** Yields rows. Throws an Error with the file's name if the file makes its reader hang or use too much memory. */
export async function* parquet(path: string): AsyncGenerator<Row> {
  const { size } = await stat(path);
  if (size === 0) throw new Error(`${path}: is empty`);
  for await (const _ of bytesOf({ path, isGzip: false })) break; // throws if the file begins like something else
  const beats = new Int32Array(new SharedArrayBuffer(4));
  const worker = new Worker(threadUrl('parquet_thread', import.meta.url), {
    workerData: { path, beats },
    resourceLimits: { maxOldGenerationSizeMb: MAX_HEAP },
  });
  const answers = new Answers(worker, beats, HANGS_MS + size * HANGS_MS_PER_BYTE);
  try {
    for (let row = 0; ; ) {
      const answer = await answers.next();
      if ('isEnd' in answer) return;
      if ('error' in answer) throw new Error(answer.error);
      for (const json of answer.batch) yield rowOf(json, `${path}, row ${row++}`);
    }
  } catch (error) {
    const { message, code } = error as NodeJS.ErrnoException;
    if (message.startsWith(path)) throw error;
    const what = code === 'ERR_WORKER_OUT_OF_MEMORY' ? `takes more than ${MAX_HEAP} MiB to read` : message;
    throw new Error(`${path}: ${what}`, { cause: error });
  } finally {
    answers.close();
    await worker.terminate();
  }
}

/** Asks a thread for one answer at a time, and watches that it makes progress. */
class Answers {
  readonly #worker: Worker;
  readonly #watch: NodeJS.Timeout;
  #waiting: { resolve(answer: Answer): void; reject(error: Error): void } | null = null;
  #failure: Error | null = null;

  constructor(worker: Worker, beats: Int32Array, hangsMs: number) {
    this.#worker = worker;
    worker.on('message', (answer: Answer) => this.#waiting?.resolve(answer));
    worker.once('error', (error) => this.#fail(error));
    worker.once('exit', (code) => this.#fail(new Error(`the reading thread ended with ${code}`)));
    let [beat, since] = [0, performance.now()];
    this.#watch = setInterval(() => {
      const now = performance.now();
      const next = Atomics.load(beats, 0);
      if (next !== beat || !this.#waiting) [beat, since] = [next, now];
      if (now - since < (beat === 0 ? START_MS : hangsMs)) return;
      this.#fail(new Error(`is damaged: reading it has made no progress for ${Math.round((now - since) / 1000)} s`));
    }, LOOK_MS);
  }

  async next(): Promise<Answer> {
    if (this.#failure) throw this.#failure;
    try {
      return await new Promise((resolve, reject) => {
        this.#waiting = { resolve, reject };
        this.#worker.postMessage('next');
      });
    } finally {
      this.#waiting = null;
    }
  }

  #fail(error: Error): void {
    this.#failure ??= error;
    this.#waiting?.reject(error);
  }

  close(): void {
    clearInterval(this.#watch);
  }
}
