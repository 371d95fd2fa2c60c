// Loads the addon and declares the types of its calls: one line for each kernel, with the names and argument order of C++.
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type {
  AdamwSettings,
  AdamwStates,
  AttentionGradients,
  AttentionInputs,
  AttentionOptions,
  Dropout,
  ExpertGradients,
  ExpertScratch,
  ExpertWeights,
  GateUp,
  Head,
  HeadGradients,
  LossOptions,
  LossTargets,
  MlpAdapters,
  MlpGradients,
  MlpWeights,
  Nf4,
  OptionalTensor as Optional,
  RopeOptions,
  KernelTensor as Tensor,
  TokenOutputs,
} from './kernel_arguments.ts';

/** The ops of native/ops/*.h. Call them through `kernels`, which runs each on the device of its tensors. */
export interface Kernels {
  embedding_forward(weight: Tensor, ids: Tensor, y: Tensor): void;
  embedding_backward(dy: Tensor, ids: Tensor, dweight: Tensor, workspace: Optional): void;
  rms_norm_forward(x: Tensor, weight: Tensor, y: Tensor, eps: number, weightOffset: number): void;
  // biome-ignore format: one line for each kernel
  rms_norm_backward(dy: Tensor, x: Tensor, weight: Tensor, dx: Tensor, dweight: Optional, partials: Optional, eps: number, weightOffset: number): void;
  // biome-ignore format: one line for each kernel
  matmul(a: Tensor, b: Tensor, c: Tensor, workspace: Optional, transposeA: boolean, transposeB: boolean, alpha: number, beta: number): void;
  bias_forward(y: Tensor, bias: Tensor): void;
  bias_backward(dy: Tensor, dbias: Tensor, partials: Tensor): void;
  rope(x: Tensor, inverseFrequencies: Tensor, documentStart: Optional, y: Tensor, options: RopeOptions): void;
  // biome-ignore format: one line for each kernel
  attention_forward(inputs: AttentionInputs, out: Tensor, lse: Tensor, workspace: Optional, options: AttentionOptions): void;
  // biome-ignore format: one line for each kernel
  attention_backward(dout: Tensor, inputs: AttentionInputs, out: Tensor, lse: Tensor, gradients: AttentionGradients, workspace: Optional, options: AttentionOptions): void;
  // biome-ignore format: one line for each kernel
  cached_attention(inputs: AttentionInputs, out: Tensor, position: number, options: AttentionOptions): void;
  glu_forward(gate: Tensor, up: Tensor, y: Tensor, activation: number): void;
  // biome-ignore format: one line for each kernel
  glu_backward(dy: Tensor, gate: Tensor, up: Tensor, dgate: Tensor, dup: Tensor, y: Optional, activation: number): void;
  // biome-ignore format: one line for each kernel
  chunked_mlp_forward(x: Tensor, weights: MlpWeights, y: Tensor, gateUp: GateUp, h: Tensor, workspace: Optional, activation: number, adapters: MlpAdapters): void;
  // biome-ignore format: one line for each kernel
  chunked_mlp_backward(dy: Tensor, x: Tensor, weights: MlpWeights, gradients: MlpGradients, gateUp: GateUp, dh: Tensor, workspace: Optional, activation: number, adapters: MlpAdapters): void;
  // biome-ignore format: one line for each kernel
  chunked_experts_forward(x: Tensor, weights: ExpertWeights, y: Tensor, scratch: ExpertScratch, workspace: Optional, activation: number, normalized: boolean): void;
  // biome-ignore format: one line for each kernel
  chunked_experts_backward(dy: Tensor, x: Tensor, weights: ExpertWeights, gradients: ExpertGradients, scratch: ExpertScratch, workspace: Optional, activation: number, normalized: boolean): void;
  dropout(x: Tensor, y: Tensor, dropout: Dropout, op: number, firstRow: number): void;
  softcap_forward(x: Tensor, y: Tensor, cap: number): void;
  softcap_backward(dy: Tensor, y: Tensor, dx: Tensor, cap: number): void;
  // biome-ignore format: one line for each kernel
  cross_entropy(logits: Tensor, targets: LossTargets, outputs: TokenOutputs, options: LossOptions, firstRow: number, writeDlogits: boolean): void;
  cross_entropy_sum(losses: Tensor, tokenWeights: Optional, loss: Tensor, scale: number): void;
  cross_entropy_divisor(targets: Tensor, tokenWeights: Optional, divisor: Tensor, ignoreIndex: number): void;
  // biome-ignore format: one line for each kernel
  chunked_cross_entropy(hidden: Tensor, head: Head, targets: LossTargets, outputs: TokenOutputs, gradients: HeadGradients, logits: Tensor, workspace: Optional, options: LossOptions): void;
  all_reduce(x: Tensor): void;
  reduce_scatter(x: Tensor, part: number): void;
  all_gather(x: Tensor, part: number): void;
  all_to_all(x: Tensor, y: Tensor, ranks: { first: number; size: number }): void;
  add(a: Tensor, b: Tensor, y: Tensor): void;
  add_to(x: Tensor, y: Tensor): void;
  scale(x: Tensor, y: Tensor, factor: number): void;
  scale_by(x: Tensor, factor: Tensor, divisor: Optional, y: Tensor): void;
  cast(x: Tensor, y: Tensor): void;
  fill(y: Tensor, value: number): void;
  sum_of_squares(x: Tensor, sum: Tensor, partials: Tensor): void;
  clip_factor(sums: Tensor, norm: Tensor, factor: Tensor, maxNorm: number): void;
  adamw_count(numSteps: Tensor, gradientFactor: Optional): void;
  // biome-ignore format: one line for each kernel
  adamw(parameter: Tensor, master: Optional, gradient: Tensor, states: AdamwStates, gradientFactor: Optional, numSteps: Tensor, settings: AdamwSettings): void;
  random_normal(y: Tensor, mean: number, standardDeviation: number, seed: number, op: number, step: number): void;
  nf4_quantize(x: Tensor, to: Nf4, largest: Tensor): void;
  nf4_dequantize(from: Nf4, y: Tensor): void;
}

/** What the addon has found out about CUDA on this machine. */
export interface CudaReport {
  built: boolean;
  architectures: string;
  /** 13000 is 13.0; 0 if unknown. */
  runtimeVersion: number;
  driverVersion: number;
  cublasLtPath: string;
  cublasLtVersion: number;
  cublasLtTried: string[];
  /** Why products do not use cuBLASLt; empty if they do. */
  cublasLtProblem: string;
  /** Empty if it was not found. */
  cudnnPath: string;
  /** 91900 is 9.19.0; 0 if unknown. */
  cudnnVersion: number;
  /** Why attention cannot use cuDNN; empty if it can. */
  cudnnProblem: string;
  /** Why cuda:0 cannot be used; empty if it can. */
  problem: string;
  devices: {
    index: number;
    name: string;
    computeCapability: string;
    numMultiprocessors: number;
    totalBytes: number;
    freeBytes: number;
    /** Why it cannot be used; empty if it can. */
    problem: string;
  }[];
}

/** Matrix products on CUDA. 'builtin': the built-in kernels. 'auto': cuBLASLt if it is found, else the built-in kernels. */
export type MatmulChoice = 'auto' | 'builtin';

/** Attention on CUDA. 'builtin': the built-in kernels. 'auto': cuDNN if it is found and faster, else the built-in kernels. */
export type AttentionChoice = 'auto' | 'builtin' | 'cudnn';

interface OpenedDevice {
  id: number;
  granularity: number;
  attention: 'builtin' | 'cudnn';
  /** Why matrix products run in the built-in kernels; empty if they do not. */
  builtinMatmulReason: string;
}

/** The addon's calls that are not ops; native/runtime/device_calls.h describes them. Addresses are numbers, sizes bytes. */
export interface DeviceCalls {
  // biome-ignore format: one line for each call
  open_device(kind: 'cpu' | 'cuda', index: number, threads: number, attention: AttentionChoice, matmul: MatmulChoice, tuningDirectory: string): OpenedDevice;
  close_device(id: number): void;
  close_all(): void;
  reserve(id: number, bytes: number): number;
  map(id: number, address: number, bytes: number): void;
  unmap(id: number, address: number, bytes: number): void;
  available_bytes(id: number): number;
  allocate_host(id: number, bytes: number): number;
  free_host(id: number, address: number): void;
  /** Frees host memory, unless the address is 0, and allocates another; both on the command thread, after all commands so far. */
  reallocate_host(id: number, address: number, bytes: number): Promise<number>;
  write(id: number, address: number, bytes: Uint8Array, owner?: number): void;
  copy_within(id: number, to: number, from: number, bytes: number): void;
  /** Copies after all commands so far and beside those that come; returns the number of its event. See context.h. */
  copy_beside(id: number, stream: number, to: number, from: number, bytes: number): number;
  /** Commands from here on run after the copy with this event. */
  wait_for(id: number, event: number): void;
  fill_bytes(id: number, address: number, value: number, bytes: number): void;
  check_bytes(id: number, address: number, value: number, bytes: number, what: string): void;
  read(id: number, address: number, into: Uint8Array, owner?: number): Promise<void>;
  synchronize(id: number): Promise<void>;
  /** Returns what every rank must know of this one. */
  join_group(id: number, rank: number, size: number, host: string, timeoutSeconds: number): Uint8Array;
  connect_group(id: number, addresses: Uint8Array[]): Promise<void>;
  abort_group(id: number): void;
  /** Until `end_capture`, commands are recorded in a CUDA graph instead of run; see DeviceContext::begin_capture. For benchmarks. */
  begin_capture(id: number): void;
  end_capture(id: number): void;
  /** Runs the graph captured last. */
  replay(id: number): void;
  describe_cuda(): CudaReport;
  set_cuda_library_path(directories: string[]): void;
}

type Addon = DeviceCalls & Record<string, (device: number, ...args: unknown[]) => void>;

/** Thrown when the addon cannot be loaded on this machine. `meta` and planning work without it. */
export class NativeLoadError extends Error {
  override readonly name = 'NativeLoadError';
  readonly code = 'NATIVE_LOAD_FAILED';
}

let loaded: Addon | null = null;

/** The addon, loaded on first use. If that fails, throws a NativeLoadError that lists the paths tried and says what to do. */
export function addon(): Addon {
  if (!loaded) {
    const addon = load();
    // When the process exits, libraries destroy data that their threads use, so no command may still be running.
    process.prependOnceListener('exit', () => addon.close_all());
    loaded = addon;
  }
  return loaded;
}

/** Paths where the addon may be: first a checkout's build, then the binary inside the package. */
export function addonPaths(): string[] {
  const root = join(dirname(fileURLToPath(import.meta.url)), '..', '..');
  return [
    join(root, 'build', 'Release', 'minisequence.node'),
    join(root, 'prebuilds', `${process.platform}-${process.arch}`, 'minisequence.node'),
  ];
}

/**
 * How often an idle OpenMP thread looks for work before it sleeps: about 0.05 ms. OpenMP's default is several milliseconds; if another
 * program needs a core, a waiting thread then takes that time from the thread that it waits for.
 */
const SPIN_COUNT = '1000';

/** Loads the addon with OpenMP's spin count set, unless the user has set one. OpenMP reads the environment once, when it is loaded. */
function load(): Addon {
  const isChosen = process.env.GOMP_SPINCOUNT !== undefined || process.env.OMP_WAIT_POLICY !== undefined;
  if (isChosen) return loadAddon();
  process.env.GOMP_SPINCOUNT = SPIN_COUNT;
  try {
    return loadAddon();
  } finally {
    delete process.env.GOMP_SPINCOUNT;
  }
}

function loadAddon(): Addon {
  const require = createRequire(import.meta.url);
  const problems: string[] = [];
  for (const path of addonPaths()) {
    try {
      return require(path) as Addon;
    } catch (error) {
      problems.push(`  ${path}: ${(error as Error).message.split('\n')[0]}`);
    }
  }
  throw new NativeLoadError(
    `minisequence: the native addon could not be loaded on ${process.platform}-${process.arch}, Node ${process.version}.\n` +
      `${problems.join('\n')}\n` +
      'Binaries are shipped for linux-x64 with glibc 2.34 or newer. In a checkout: npm run build. ' +
      "Elsewhere, device 'meta' and planning work without it.",
  );
}

type Argument = Tensor | number | boolean | null | { [name: string]: Argument };

function toNative(argument: Argument): unknown {
  if (typeof argument !== 'object' || argument === null) return argument;
  if ('view' in argument) return argument.view;
  const named: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(argument)) named[name] = toNative(value);
  return named;
}

/** The device of a tensor, or of the first tensor in an object. */
function deviceOf(first: Tensor | Record<string, Tensor>): Tensor['device'] {
  return 'view' in first ? (first as Tensor).device : Object.values(first)[0]!.device;
}

/** Every kernel by its C++ name. A call runs on the device of its first argument; on `meta` it does nothing. */
export const kernels = new Proxy<Record<string, unknown>>(
  {},
  {
    get(cache, name: string) {
      cache[name] ??= (...args: [Tensor | Record<string, Tensor>, ...Argument[]]) => {
        const { id } = deviceOf(args[0]);
        if (id !== null) addon()[name]!(id, ...args.map(toNative));
      };
      return cache[name];
    },
  },
) as unknown as Kernels;
