// A rank's connection to the store in rank 0.
import { connect, type Socket } from 'node:net';
import { setTimeout as wait } from 'node:timers/promises';
import { type FromStore, listen, send } from './messages.ts';
import type { RankPlace } from './place.ts';
import { beatMs, StoreServer, type StoreTimes } from './store_server.ts';

/** Thrown on every rank when one is lost. Continue from the last checkpoint. */
export class RankError extends Error {
  override readonly name = 'RankError';
  /** The rank that is lost. */
  readonly rank: number;

  constructor(rank: number, message: string) {
    super(`rank ${rank} ${message}`);
    this.rank = rank;
  }
}

export interface StoreOptions extends Partial<StoreTimes> {
  /** Of the package. */
  version: string;
}

/** Shares small values between ranks, and tells each when another is lost. */
export class RankStore {
  readonly place: RankPlace;
  /** Aborted with a RankError when a rank is lost, this one too. */
  readonly failure: AbortSignal;
  readonly #failure = new AbortController();
  readonly #socket: Socket;
  readonly #server: StoreServer | null;
  readonly #silenceSeconds: number;
  readonly #waiting = new Map<string, { resolve: (values: unknown[]) => void; reject: (error: unknown) => void }>();
  /** Resolves when all ranks have left, or one is lost. */
  readonly #end: Promise<void>;
  #onEnd!: () => void;
  readonly #timer: NodeJS.Timeout;
  #heard = performance.now();
  #ticked = performance.now();
  #step = 0;
  #isLeaving = false;

  private constructor(place: RankPlace, socket: Socket, server: StoreServer | null, silenceSeconds: number) {
    this.place = place;
    this.failure = this.#failure.signal;
    this.#socket = socket;
    this.#server = server;
    this.#silenceSeconds = silenceSeconds;
    this.#end = new Promise((resolve) => {
      this.#onEnd = resolve;
    });
    socket.on('error', () => {}); // 'close' follows
    socket.on('close', () => {
      if (!this.#isLeaving) this.#fail(new RankError(0, 'closed its connection: the process has ended'));
      this.#onEnd();
    });
    listen<FromStore>(
      socket,
      (message) => this.#onMessage(message),
      (why) => this.#fail(new RankError(0, `sent what is no message: ${why}`)),
    );
    this.#timer = setInterval(() => this.#tick(), beatMs({ silenceSeconds }));
    this.#timer.unref();
  }

  /** Rank 0 listens; every rank connects to it, and waits for it if it is later. */
  static async connect(place: RankPlace, options: StoreOptions): Promise<RankStore> {
    const { version, silenceSeconds = 20, startSeconds = 300 } = options;
    const times = { silenceSeconds, startSeconds };
    const { rank, size, address, port } = place;
    const server = rank === 0 ? await StoreServer.listen(place, version, times) : null;
    try {
      const socket = await reach(address, port, startSeconds);
      send(socket, { type: 'hello', rank, size, version });
      return new RankStore(place, socket, server, silenceSeconds);
    } catch (error) {
      server?.close();
      throw error;
    }
  }

  /** This machine's address on the way to rank 0, which other ranks reach it by. */
  get host(): string {
    return this.#socket.localAddress ?? this.place.address;
  }

  /** Resolves with the values of all ranks, by rank, when the last has come. @param value what JSON can hold */
  async gather<Value>(key: string, value: Value): Promise<Value[]> {
    this.failure.throwIfAborted();
    if (this.#waiting.has(key)) throw new Error(`ranks: '${key}' is gathered twice at once`);
    const values = new Promise<unknown[]>((resolve, reject) => this.#waiting.set(key, { resolve, reject }));
    send(this.#socket, { type: 'gather', key, value });
    return (await values) as Value[];
  }

  /** The step that is named where this rank is lost from here on. */
  begin(step: number): void {
    this.#step = step;
  }

  /** Tells the others that this rank ends with an error. */
  fail(message: string): void {
    send(this.#socket, { type: 'fail', message });
  }

  /** Ends well, when all have: no rank takes another's end for a loss. */
  async leave(): Promise<void> {
    this.#isLeaving = true;
    send(this.#socket, { type: 'leave' });
    await this.#end;
    this.close();
  }

  /** Ends at once. */
  close(): void {
    this.#isLeaving = true;
    clearInterval(this.#timer);
    this.#socket.end();
    this.#server?.close();
  }

  #onMessage(message: FromStore): void {
    this.#heard = performance.now();
    if (message.type === 'gathered') {
      this.#waiting.get(message.key)?.resolve(message.values);
      this.#waiting.delete(message.key);
    } else if (message.type === 'failed') this.#fail(new RankError(message.rank, message.message));
    else if (message.type === 'left') this.#onEnd();
  }

  #tick(): void {
    const now = performance.now();
    const late = now - this.#ticked - beatMs({ silenceSeconds: this.#silenceSeconds });
    this.#ticked = now;
    if (late > 1000) this.#heard += late; // what came while this process did not run is not read yet
    send(this.#socket, { type: 'beat', step: this.#step });
    if (now - this.#heard > this.#silenceSeconds * 1000) {
      this.#fail(new RankError(0, `has sent no heartbeat for ${this.#silenceSeconds} s`));
    }
  }

  #fail(error: RankError): void {
    if (this.failure.aborted) return;
    this.#failure.abort(error);
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
    this.#onEnd();
  }
}

/** Connects, again and again until somebody listens. */
async function reach(address: string, port: number, seconds: number): Promise<Socket> {
  const end = performance.now() + seconds * 1000;
  for (;;) {
    const socket = connect({ host: address, port, noDelay: true });
    const problem = await new Promise<NodeJS.ErrnoException | null>((resolve) => {
      socket.once('connect', () => resolve(null));
      socket.once('error', resolve);
    });
    if (!problem) return socket;
    socket.destroy();
    if (performance.now() > end) {
      throw new Error(
        `MASTER_ADDR, MASTER_PORT: nobody was reached at ${address}:${port} within ${seconds} s: ${problem.code}`,
      );
    }
    await wait(200);
  }
}
