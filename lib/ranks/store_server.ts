// The store in rank 0, where ranks meet: it gathers their values, and tells all when one is lost.
import { createServer, type Server, type Socket } from 'node:net';
import { type FromStore, listen, send, type ToStore } from './messages.ts';
import type { RankPlace } from './place.ts';

/** Addresses of MASTER_ADDR that only this machine has. */
const LOOPBACK = ['127.0.0.1', 'localhost'];

export interface StoreTimes {
  /** A rank that says nothing for so long is lost; it says something ten times as often. */
  silenceSeconds: number;
  /** All ranks must have come within this time. */
  startSeconds: number;
}

interface Member {
  rank: number;
  socket: Socket;
  heard: number;
  step: number;
  hasLeft: boolean;
}

/** How often ranks and the store tell each other that they are alive. */
export const beatMs = ({ silenceSeconds }: Pick<StoreTimes, 'silenceSeconds'>): number => silenceSeconds * 100;

export class StoreServer {
  readonly #size: number;
  readonly #version: string;
  readonly #times: StoreTimes;
  readonly #server: Server;
  readonly #members = new Map<number, Member>();
  /** Values of keys that some rank still lacks, by rank. */
  readonly #gathering = new Map<string, Map<number, unknown>>();
  readonly #sockets = new Set<Socket>();
  #timer: NodeJS.Timeout | undefined;
  #failed: Extract<FromStore, { type: 'failed' }> | null = null;
  #began = 0;
  #ticked = 0;

  private constructor(size: number, version: string, times: StoreTimes) {
    this.#size = size;
    this.#version = version;
    this.#times = times;
    this.#server = createServer((socket) => this.#onConnection(socket));
  }

  /**
   * Listens on a port: of this machine alone where ranks meet at 127.0.0.1 or localhost, else of all the machine's addresses.
   * @param version of the package, which every rank must have
   */
  static async listen(place: RankPlace, version: string, times: StoreTimes): Promise<StoreServer> {
    const { address, port, size } = place;
    const store = new StoreServer(size, version, times);
    await new Promise<void>((resolve, reject) => {
      store.#server.once('error', (error: NodeJS.ErrnoException) =>
        reject(error.code === 'EADDRINUSE' ? new Error(`MASTER_PORT: ${port} is in use; choose another`) : error),
      );
      store.#server.listen({ port, host: LOOPBACK.includes(address) ? '127.0.0.1' : undefined }, resolve);
    });
    store.#began = store.#ticked = performance.now();
    store.#timer = setInterval(() => store.#tick(), beatMs(times));
    store.#timer.unref();
    return store;
  }

  #onConnection(socket: Socket): void {
    this.#sockets.add(socket);
    let member: Member | null = null;
    socket.setNoDelay(true);
    socket.on('error', () => {}); // 'close' follows
    socket.on('close', () => {
      this.#sockets.delete(socket);
      if (member && !member.hasLeft) this.#fail(member.rank, 'its connection was closed: the process has ended');
    });
    const onNoise = (why: string) => {
      if (member) this.#fail(member.rank, `sent what is no message: ${why}`);
    };
    listen<ToStore>(
      socket,
      (message) => {
        if (member) this.#onMessage(member, message);
        else if (message.type === 'hello') member = this.#greet(socket, message);
        else socket.destroy();
      },
      onNoise,
    );
  }

  #greet(socket: Socket, { rank, size, version }: Extract<ToStore, { type: 'hello' }>): Member | null {
    const problem =
      size !== this.#size
        ? `has WORLD_SIZE ${size}, rank 0 has ${this.#size}`
        : version !== this.#version
          ? `is of minisequence ${version}, rank 0 of ${this.#version}`
          : this.#members.has(rank)
            ? 'came twice: two processes have the same RANK'
            : null;
    if (problem !== null) {
      this.#fail(rank, problem);
      send(socket, this.#failed!);
      return null;
    }
    const member = { rank, socket, heard: performance.now(), step: 0, hasLeft: false };
    this.#members.set(rank, member);
    if (this.#failed) send(socket, this.#failed);
    return member;
  }

  #onMessage(member: Member, message: ToStore): void {
    member.heard = performance.now();
    if (message.type === 'beat') {
      member.step = message.step;
      send(member.socket, { type: 'beat' });
    } else if (message.type === 'gather') this.#gather(member.rank, message.key, message.value);
    else if (message.type === 'fail') this.#fail(member.rank, message.message);
    else if (message.type === 'leave') {
      member.hasLeft = true;
      const haveLeft = [...this.#members.values()].filter(({ hasLeft }) => hasLeft).length;
      if (haveLeft === this.#size) this.#tell({ type: 'left' });
    }
  }

  #gather(rank: number, key: string, value: unknown): void {
    const values = this.#gathering.get(key) ?? new Map<number, unknown>();
    this.#gathering.set(key, values);
    values.set(rank, value);
    if (values.size < this.#size) return;
    this.#gathering.delete(key);
    this.#tell({ type: 'gathered', key, values: Array.from({ length: this.#size }, (_, rank) => values.get(rank)) });
  }

  #tick(): void {
    const now = performance.now();
    const late = now - this.#ticked - beatMs(this.#times);
    this.#ticked = now;
    // What ranks said while this process did not run is not read yet.
    if (late > 1000) for (const member of this.#members.values()) member.heard += late;
    if (this.#members.size < this.#size && now - this.#began > this.#times.startSeconds * 1000) {
      const missing = Array.from({ length: this.#size }, (_, rank) => rank).filter((rank) => !this.#members.has(rank));
      this.#fail(
        missing[0]!,
        `has not come within ${this.#times.startSeconds} s (ranks that have not: ${missing.join(', ')})`,
      );
    }
    for (const { rank, heard, hasLeft } of this.#members.values()) {
      if (hasLeft || now - heard < this.#times.silenceSeconds * 1000) continue;
      this.#fail(rank, `has sent no heartbeat for ${this.#times.silenceSeconds} s`);
    }
  }

  #fail(rank: number, message: string): void {
    if (this.#failed) return;
    const step = this.#members.get(rank)?.step ?? 0;
    this.#failed = { type: 'failed', rank, message: step > 0 ? `at step ${step}: ${message}` : message };
    this.#tell(this.#failed);
  }

  #tell(message: FromStore): void {
    for (const { socket } of this.#members.values()) send(socket, message);
  }

  close(): void {
    clearInterval(this.#timer);
    this.#server.close();
    for (const socket of this.#sockets) socket.end();
  }
}
