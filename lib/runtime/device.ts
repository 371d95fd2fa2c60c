// Devices: where tensors live and ops run. Each has its own arena; the arena of `meta` does the bookkeeping without any memory.
import { availableParallelism, homedir, totalmem } from 'node:os';
import { isAbsolute, join } from 'node:path';
import { Arena } from './memory/arena.ts';
import { HostMemory } from './memory/host_memory.ts';
import { formatBytes, type MemoryStatistics } from './memory/statistics.ts';
import { type AttentionChoice, addon, type MatmulChoice } from './native.ts';
import { roundUp } from './shape.ts';

/** `'auto'`: cuda if it can be used, otherwise cpu with one warning. */
export type DeviceName = 'cpu' | 'cuda' | `cuda:${number}` | 'meta' | 'auto';

/** What kind of hardware a device is. Workspace sizes depend on it, so `meta` can imitate a device by its target. */
export type DeviceTarget =
  | { kind: 'cpu'; threads: number }
  | {
      kind: 'cuda';
      /** @default 'builtin' */
      attention?: 'builtin' | 'cudnn';
    };

export interface DeviceOptions {
  /**
   * Upper limit of the arena in bytes. Default: 90 % of the memory available now (cpu), the free memory (cuda), unlimited (meta). If the
   * process may not reserve that much address space (ulimit -v), the limit is lower; `Device.memoryLimit` tells it.
   */
  memoryLimit?: number;
  /**
   * Most bytes of host memory beside the device's own, for inputs of layers (`StepPolicy.offloadedInputs`). It is pinned on CUDA, and
   * allocated when a step first needs it, as much as it needs, beside what JavaScript does. @default 0: none
   */
  hostMemoryLimit?: number;
  /** Number of CPU threads. @default the number of cores available to the process, over `sharedBy` */
  threads?: number;
  /** Processes on this machine that open the CPU for one task: its cores and its memory are shared among them. @default 1 */
  sharedBy?: number;
  /** Puts red zones around every block and NaN in freed memory, to find kernels that write outside their tensors. Slow. @default false */
  debug?: boolean;
  /**
   * Which attention kernels run on CUDA. cuDNN's are faster from Hopper on (bf16, no document boundaries, T a multiple of 128), but their
   * backward is not bitwise reproducible; the built-in kernels, `'builtin'`, are. @default 'auto': cuDNN if it is found and faster
   */
  attention?: AttentionChoice;
  /**
   * Which kernels compute matrix products on CUDA. The built-in ones, `'builtin'`, need only a driver and reach 0.4 of cuBLASLt's speed.
   * @default 'auto': cuBLASLt if it is found, otherwise the built-in kernels with one warning
   */
  matmul?: MatmulChoice;
  /**
   * Whether the first CUDA product of each kind times cuBLASLt's algorithms and picks the fastest. Choices are stored in the user's cache
   * folder, so later runs on the same machine make the same choices and give the same bits. @default true
   */
  tuneMatmul?: boolean;
  /**
   * Makes results on CUDA bitwise reproducible: uses the built-in attention and cuBLASLt's first algorithm, untimed, and overrides
   * `tuneMatmul`. (Partial sums of a product are never added atomically or rounded to bf16, with or without this option.)
   * No effect on the CPU, where results are always the same for one machine and number of threads. @default false
   */
  deterministic?: boolean;
  /** The hardware that `meta` imitates. @default the CPU of this machine */
  like?: DeviceTarget;
}

/** Most address space that an arena reserves, in bytes; memory is mapped as it is needed. */
const MAX_ADDRESSES = 2 ** 40;
const CPU_MEMORY_SHARE = 0.9;
/** Page size of `meta` when it imitates a GPU: the granularity of CUDA's virtual memory. */
const CUDA_GRANULARITY = 2 ** 21;
const CPU_GRANULARITY = 2 ** 16;
/** OpenMP ends the process if it cannot create threads, so absurd numbers are refused. */
const MAX_THREADS = 1024;
const ATTENTION_CHOICES: readonly AttentionChoice[] = ['auto', 'builtin', 'cudnn'];
const MATMUL_CHOICES: readonly MatmulChoice[] = ['auto', 'builtin'];

export class Device {
  readonly name: string;
  /** Number of the open native device; null on `meta`. */
  readonly id: number | null;
  readonly target: DeviceTarget;
  readonly arena: Arena;
  readonly memoryLimit: number;
  /** Memory of the host, for inputs of layers. */
  readonly host: HostMemory;
  readonly #base: number;
  #closed = false;
  /** Of `meta`; the addon counts its own. */
  #numEvents = 0;

  private constructor(
    name: string,
    id: number | null,
    target: DeviceTarget,
    base: number,
    granularity: number,
    options: { memoryLimit: number; hostMemoryLimit: number; debug: boolean },
  ) {
    this.name = name;
    this.id = id;
    this.target = target;
    this.memoryLimit = options.memoryLimit;
    this.#base = base;
    const memory =
      id === null
        ? { name, granularity, map() {}, fill() {}, check() {}, waitFor() {} }
        : {
            name,
            granularity,
            map: (offset: number, bytes: number) => addon().map(id, base + offset, bytes),
            // Tensors may be disposed after their device has been closed.
            fill: (offset: number, value: number, bytes: number) => {
              if (!this.#closed) addon().fill_bytes(id, base + offset, value, bytes);
            },
            check: (offset: number, value: number, bytes: number, what: string) => {
              if (!this.#closed) addon().check_bytes(id, base + offset, value, bytes, what);
            },
            waitFor: (event: number) => {
              if (!this.#closed) addon().wait_for(id, event);
            },
          };
    this.arena = new Arena(memory, options);
    const allocator =
      id === null
        ? { name, allocate: () => 0, free() {}, reallocate: async () => 0 }
        : {
            name,
            allocate: (bytes: number) => addon().allocate_host(id, bytes),
            free: (address: number) => addon().free_host(id, address),
            reallocate: (address: number, bytes: number) => addon().reallocate_host(id, address, bytes),
          };
    this.host = new HostMemory(allocator, options.hostMemoryLimit);
  }

  /** Opens a new device with its own arena. If it cannot be used, the error says why and what to do. */
  static open(name: DeviceName, options: DeviceOptions = {}): Device {
    const { hostMemoryLimit = 0, sharedBy = 1, debug = false, deterministic = false, matmul = 'auto' } = options;
    requireThreads('sharedBy', sharedBy);
    const { threads = Math.max(1, Math.floor(availableParallelism() / sharedBy)) } = options;
    for (const [option, value] of Object.entries({
      debug,
      deterministic,
      tuneMatmul: options.tuneMatmul ?? true,
    })) {
      if (typeof value !== 'boolean') throw new TypeError(`openDevice: ${option} must be true or false, got ${value}`);
    }
    const attention = deterministic ? 'builtin' : (options.attention ?? 'auto');
    const tuneMatmul = !deterministic && (options.tuneMatmul ?? true);
    if (deterministic && options.attention === 'cudnn') {
      throw new RangeError(
        "openDevice: deterministic excludes attention 'cudnn', whose backward is not bitwise reproducible",
      );
    }
    requireThreads('threads', threads);
    if (!ATTENTION_CHOICES.includes(options.attention ?? 'auto')) {
      throw new RangeError(`openDevice: attention must be ${ATTENTION_CHOICES.join(', ')}, got ${options.attention}`);
    }
    if (!MATMUL_CHOICES.includes(matmul)) {
      throw new RangeError(`openDevice: matmul must be ${MATMUL_CHOICES.join(', ')}, got ${matmul}`);
    }
    if (options.memoryLimit !== undefined && !(typeof options.memoryLimit === 'number' && options.memoryLimit > 0)) {
      throw new RangeError(`openDevice: memoryLimit must be a positive number of bytes, got ${options.memoryLimit}`);
    }
    const [kind, index] = parseName(name === 'auto' ? chooseAutomatically() : name);
    requireHostMemory(hostMemoryLimit, kind === 'meta' ? Infinity : hostBytes());
    if (kind === 'meta') {
      const { like = { kind: 'cpu', threads } } = options;
      requireTarget(like);
      const target: DeviceTarget = deterministic && like.kind === 'cuda' ? { ...like, attention: 'builtin' } : like;
      const granularity = target.kind === 'cpu' ? CPU_GRANULARITY : CUDA_GRANULARITY;
      const limits = { memoryLimit: options.memoryLimit ?? Infinity, hostMemoryLimit };
      return new Device('meta', null, target, 0, granularity, { ...limits, debug });
    }
    const { id, granularity, ...opened } = addon().open_device(
      kind,
      index,
      threads,
      attention,
      matmul,
      kind === 'cuda' && tuneMatmul ? tuningDirectory() : '',
    );
    if (opened.builtinMatmulReason && matmul === 'auto') {
      warnOnce(
        'MINISEQUENCE_BUILTIN_MATMUL',
        `matrix products run in the built-in kernels: ${opened.builtinMatmulReason}`,
      );
    }
    const target: DeviceTarget = kind === 'cpu' ? { kind, threads } : { kind, attention: opened.attention };
    const deviceName = kind === 'cpu' ? 'cpu' : `cuda:${index}`;
    try {
      const wanted =
        options.memoryLimit ?? addon().available_bytes(id) * (kind === 'cpu' ? CPU_MEMORY_SHARE / sharedBy : 1);
      const { base, bytes } = reserve(deviceName, id, granularity, wanted);
      const memoryLimit = Math.min(wanted, bytes);
      return new Device(deviceName, id, target, base, granularity, { memoryLimit, hostMemoryLimit, debug });
    } catch (error) {
      addon().close_device(id);
      throw error;
    }
  }

  /** Address of a byte of the arena. On `meta` there is no memory at it. */
  address(offset: number): number {
    if (this.#closed) throw new Error(`${this.name}: the device was closed`);
    return this.#base + offset;
  }

  /**
   * Copies bytes after all commands so far and beside those that come, between this device's memory and that of `host`. Until `arena.waitFor(event)` no command may write the
   * source, nor read or write the destination; `arena.release(block, event)` frees either.
   * @param way the stream: 'toHost' or 'toDevice', each in its own order
   * @param to, from addresses
   * @returns the number of the copy's event
   */
  copyBeside(way: 'toHost' | 'toDevice', to: number, from: number, bytes: number): number {
    if (this.#closed) throw new Error(`${this.name}: the device was closed`);
    if (this.id === null) return ++this.#numEvents;
    return addon().copy_beside(this.id, way === 'toHost' ? 0 : 1, to, from, bytes);
  }

  memory(): MemoryStatistics {
    return { ...this.arena.statistics(), hostBytes: this.host.bytes };
  }

  /**
   * Resolves when every op so far has run, even if some failed: reading the output of a failed op, or anything computed from it, reports
   * the error. Rejects if the device is lost, or if a debug device has found a write outside of a tensor.
   */
  async synchronize(): Promise<void> {
    if (this.id !== null) await addon().synchronize(this.id);
  }

  /** Drops ops that have not run and frees all memory. Tensors of this device cannot be used afterwards. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.id !== null) addon().close_device(this.id);
    for (const [name, device] of shared) if (device === this) shared.delete(name);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  toString(): string {
    return this.name;
  }
}

/** Reserves address space for an arena of `wanted` bytes; if that is refused, for half as much, and so on. */
function reserve(name: string, id: number, granularity: number, wanted: number): { base: number; bytes: number } {
  const most = Math.ceil(Math.min(wanted, MAX_ADDRESSES) / granularity) * granularity;
  for (let bytes = most; ; bytes = roundUp(bytes / 2, granularity)) {
    try {
      return { base: addon().reserve(id, bytes), bytes };
    } catch (error) {
      const { code, message } = error as { code?: string; message: string };
      if (code !== 'OUT_OF_MEMORY') throw error;
      if (bytes > granularity) continue;
      throw new Error(
        `${name}: the address space of this process is limited (ulimit -v); the arena needs as much of it as its memoryLimit, ` +
          `${formatBytes(wanted)}: ${message}`,
        { cause: error },
      );
    }
  }
}

/** The user's cache folder for this package (XDG). Empty if the user has none; then no product is timed. */
function tuningDirectory(): string {
  const { XDG_CACHE_HOME = '' } = process.env;
  if (isAbsolute(XDG_CACHE_HOME)) return join(XDG_CACHE_HOME, 'minisequence');
  const home = homeDirectory();
  return isAbsolute(home) ? join(home, '.cache', 'minisequence') : '';
}

/** Empty without a home folder: HOME is not set and the user id has no passwd entry. */
function homeDirectory(): string {
  try {
    return homedir();
  } catch {
    return '';
  }
}

const shared = new Map<string, Device>();

/** The shared device of that name, opened on first use. A Device is returned as it is. */
export function getDevice(device: Device | DeviceName): Device {
  if (device instanceof Device) return device;
  const [kind, index] = device === 'auto' ? ['auto', 0] : parseName(device);
  const name = kind === 'cuda' ? `cuda:${index}` : kind;
  let found = shared.get(name);
  if (!found) {
    found = Device.open(name as DeviceName);
    shared.set(name, found);
  }
  return found;
}

/** Opens a new device, for options of its own: a memory limit, a number of threads, or a `meta` that imitates another machine. */
export function openDevice(name: DeviceName, options: DeviceOptions = {}): Device {
  return Device.open(name, options);
}

/** Statistics of a device's arena. @default the shared CPU device */
export function memory(device: Device | DeviceName = 'cpu'): MemoryStatistics {
  return getDevice(device).memory();
}

function parseName(name: string): ['cpu' | 'cuda' | 'meta', number] {
  const match = /^(cpu|meta|cuda)(?::(\d{1,9}))?$/.exec(name);
  if (!match || (match[2] !== undefined && match[1] !== 'cuda')) {
    throw new RangeError(`device: '${name}' is none of 'cpu', 'cuda', 'cuda:N', 'meta', 'auto'`);
  }
  return [match[1] as 'cpu' | 'cuda' | 'meta', Number(match[2] ?? 0)];
}

/** Memory of this machine that the process may use, in bytes. */
function hostBytes(): number {
  const constrained = process.constrainedMemory(); // 0 or huge: not constrained
  return constrained > 0 ? Math.min(constrained, totalmem()) : totalmem();
}

function requireHostMemory(limit: number, most: number): void {
  if (!(typeof limit === 'number' && limit >= 0)) {
    throw new RangeError(`openDevice: hostMemoryLimit must be a number of bytes, got ${limit}`);
  }
  if (limit > most) {
    throw new RangeError(
      `openDevice: hostMemoryLimit must be at most this machine's memory, ${formatBytes(most)}, got ${formatBytes(limit)}`,
    );
  }
}

function requireThreads(option: string, threads: number): void {
  if (!Number.isInteger(threads) || threads < 1 || threads > MAX_THREADS) {
    throw new RangeError(`openDevice: ${option} must be a positive integer up to ${MAX_THREADS}, got ${threads}`);
  }
}

function requireTarget(like: DeviceTarget): void {
  if (like.kind === 'cpu') requireThreads('like.threads', like.threads);
  else if (like.kind !== 'cuda') {
    throw new RangeError(`openDevice: like.kind must be 'cpu' or 'cuda', got '${(like as DeviceTarget).kind}'`);
  } else if (!['builtin', 'cudnn', undefined].includes(like.attention)) {
    throw new RangeError(`openDevice: like.attention must be 'builtin' or 'cudnn', got '${like.attention}'`);
  }
}

function chooseAutomatically(): DeviceName {
  const { problem } = addon().describe_cuda();
  if (problem === '') return 'cuda';
  warnOnce('MINISEQUENCE_NO_CUDA', `device 'auto' is the CPU: ${problem}`);
  return 'cpu';
}

const warned = new Set<string>();

function warnOnce(code: string, message: string): void {
  if (!warned.has(code)) process.emitWarning(message, { code });
  warned.add(code);
}
