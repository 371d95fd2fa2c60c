// Encodes on another thread, which keeps the event loop free and is ended if it hangs.
import { Worker } from 'node:worker_threads';
import { threadUrl } from '../../io/thread_url.ts';
import type { Encoded } from './encoder.ts';

/** Time limits of a text, and more for each of its characters: a hundred times what they take on an idle machine. */
const TEXT_MS = 6000;
const CHARACTER_MS = 0.04;
/** Time limit for the start of a thread. */
const START_MS = 120_000;
/** An unused thread ends after this time, which frees its memory. */
const IDLE_MS = 30_000;
const LOOK_MS = 250;

interface Waiting {
  numCharacters: number;
  resolve: (encoded: Encoded) => void;
  reject: (error: Error) => void;
}

type Answer = { key: number; error: Error } | ({ key: number; error?: undefined } & Encoded);

export class EncodeWorker {
  readonly #json: string;
  readonly #path: string;
  readonly #textMs: number;
  /** The texts that wait, in the order in which they are encoded. */
  readonly #waiting = new Map<number, Waiting>();
  #worker: Worker | null = null;
  #isReady = false;
  #key = 0;
  /** Time that the first waiting text has taken so far. */
  #spentMs = 0;
  #watch: NodeJS.Timeout | null = null;
  #idle: NodeJS.Timeout | null = null;

  /**
   * @param json the text of tokenizer.json
   * @param path of the file, for messages
   * @param textMs time limit of a text, before its characters are counted
   */
  constructor(json: string, path: string, textMs = TEXT_MS) {
    this.#json = json;
    this.#path = path;
    this.#textMs = textMs;
  }

  /** Encodes texts one after another, in order. If one takes too long, it is rejected with all others that wait. */
  encode(text: string): Promise<Encoded> {
    const worker = this.#worker ?? this.#start();
    clearTimeout(this.#idle ?? undefined);
    if (this.#waiting.size === 0) {
      worker.ref();
      this.#spentMs = 0;
      this.#watch = this.#watching();
    }
    return new Promise((resolve, reject) => {
      this.#waiting.set(++this.#key, { numCharacters: text.length, resolve, reject });
      worker.postMessage({ key: this.#key, text });
    });
  }

  #start(): Worker {
    const worker = new Worker(threadUrl('encode_thread', import.meta.url), { workerData: { json: this.#json } });
    this.#worker = worker;
    this.#isReady = false;
    worker.on('message', (message: 'ready' | Answer) => {
      this.#spentMs = 0;
      if (message === 'ready') this.#isReady = true;
      else this.#answer(worker, message);
    });
    worker.once('error', (error) => this.#end(worker, error));
    worker.once('exit', (code) =>
      this.#end(worker, new Error(`${this.#path}: the encoding thread ended with ${code}`)),
    );
    return worker;
  }

  #answer(worker: Worker, { key, error, ...encoded }: Answer): void {
    const waiting = this.#waiting.get(key);
    this.#waiting.delete(key);
    if (this.#waiting.size === 0) this.#rest(worker);
    if (error) waiting?.reject(error);
    else waiting?.resolve(encoded as Encoded);
  }

  /** Ends the thread if the current text takes too long. Time in which this process was suspended does not count. */
  #watching(): NodeJS.Timeout {
    let last = performance.now();
    return setInterval(() => {
      const now = performance.now();
      this.#spentMs += Math.min(now - last, 2 * LOOK_MS);
      last = now;
      const [first] = this.#waiting.values();
      const limitMs = this.#isReady ? this.#textMs + CHARACTER_MS * first!.numCharacters : START_MS;
      if (this.#spentMs < limitMs) return;
      const worker = this.#worker!;
      const what = this.#isReady ? `a text of ${first!.numCharacters} characters` : 'the encoding thread to start';
      this.#end(
        worker,
        new Error(
          `${this.#path}: ${what} takes longer than ${(limitMs / 1000).toFixed(1)} s; a regular expression of it may hang`,
        ),
      );
      void worker.terminate();
    }, LOOK_MS);
  }

  #rest(worker: Worker): void {
    clearInterval(this.#watch ?? undefined);
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
    clearTimeout(this.#idle ?? undefined);
    const waiting = [...this.#waiting.values()];
    this.#waiting.clear();
    for (const { reject } of waiting) reject(error);
  }
}
