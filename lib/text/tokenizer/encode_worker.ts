// Encoding on another thread, which keeps the event loop free, and which is ended when it hangs.
import { createRequire } from 'node:module';
import { extname } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { Worker } from 'node:worker_threads';
import type { Encoded } from './encoder.ts';

/** A regular expression may search so long from one place of a text, and a thread take so long to start. */
const HANGS_MS = 6000;
const START_MS = 120_000;
/** A thread that nobody has used for so long gives its memory back. */
const IDLE_MS = 30_000;
const LOOK_MS = 250;

interface Waiting {
  resolve: (encoded: Encoded) => void;
  reject: (error: Error) => void;
}

export class EncodeWorker {
  readonly #json: string;
  readonly #path: string;
  readonly #hangsMs: number;
  readonly #waiting = new Map<number, Waiting>();
  readonly #beats = new Int32Array(new SharedArrayBuffer(4));
  #worker: Worker | null = null;
  #isReady = false;
  #key = 0;
  #watch: NodeJS.Timeout | null = null;
  #idle: NodeJS.Timeout | null = null;

  /** @param json the text of tokenizer.json, from `path`, which messages name */
  constructor(json: string, path: string, hangsMs = HANGS_MS) {
    this.#json = json;
    this.#path = path;
    this.#hangsMs = hangsMs;
  }

  /** One text after another, in order. Rejects where a regular expression takes too long. */
  encode(text: string): Promise<Encoded> {
    const worker = this.#worker ?? this.#start();
    if (this.#idle) clearTimeout(this.#idle);
    worker.ref();
    this.#watch ??= this.#watching();
    return new Promise((resolve, reject) => {
      this.#waiting.set(++this.#key, { resolve, reject });
      worker.postMessage({ key: this.#key, text });
    });
  }

  #start(): Worker {
    const worker = new Worker(threadUrl(), {
      workerData: { json: this.#json, beats: this.#beats },
    });
    this.#worker = worker;
    this.#isReady = false;
    worker.on('message', (message: 'ready' | ({ key: number; error?: Error } & Encoded)) => {
      if (message === 'ready') {
        this.#isReady = true;
        return;
      }
      const { key, error, ids, ends } = message;
      const waiting = this.#waiting.get(key);
      this.#waiting.delete(key);
      if (this.#waiting.size === 0) this.#rest(worker);
      if (error) waiting?.reject(error);
      else waiting?.resolve({ ids, ends });
    });
    worker.once('error', (error) => this.#end(worker, error));
    worker.once('exit', (code) =>
      this.#end(worker, new Error(`${this.#path}: the encoding thread ended with ${code}`)),
    );
    return worker;
  }

  /** Ends the thread when it does nothing for too long. */
  #watching(): NodeJS.Timeout {
    let [beat, since] = [this.#beats[0]!, performance.now()];
    return setInterval(() => {
      const now = performance.now();
      if (this.#beats[0] !== beat) [beat, since] = [this.#beats[0]!, now];
      if (now - since < (this.#isReady ? this.#hangsMs : START_MS)) return;
      const worker = this.#worker!;
      this.#end(
        worker,
        new Error(
          `${this.#path}: a regular expression of it takes longer than ${this.#hangsMs / 1000} s at one place of the text`,
        ),
      );
      void worker.terminate();
    }, LOOK_MS);
  }

  #rest(worker: Worker): void {
    clearInterval(this.#watch!);
    this.#watch = null;
    worker.unref();
    this.#idle = setTimeout(() => {
      this.#worker = null;
      void worker.terminate();
    }, IDLE_MS);
    this.#idle.unref();
  }

  #end(worker: Worker, error: Error): void {
    if (this.#worker !== worker) return;
    this.#worker = null;
    clearInterval(this.#watch ?? undefined);
    this.#watch = null;
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const { reject } of waiting) reject(error);
  }
}

/** The thread's module lies beside this one, whether it is source, built, or part of a bundle. */
function threadUrl(): URL {
  const extension = extname(fileURLToPath(import.meta.url));
  const url = new URL(`./encode_thread${extension}`, import.meta.url);
  if (extension !== '.ts') return url;
  // Source runs under tsx, which does not reach into threads on its own.
  const tsx = pathToFileURL(
    createRequire(import.meta.url)
      .resolve('tsx/esm/api')
      .replace(/cjs$/, 'mjs'),
  );
  const code = `import { register } from '${tsx}'; register(); await import('${url}');`;
  return new URL(`data:text/javascript,${encodeURIComponent(code)}`);
}
