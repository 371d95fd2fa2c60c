// Workspaces of kernels. Their sizes depend only on op, shapes, dtype and target, so `meta` counts the same bytes.
import type { Device } from '../runtime/device.ts';
import { computeDtype, type Dtype, dtypes } from '../runtime/dtype.ts';
import { roundUp } from '../runtime/shape.ts';
import { empty, type Tensor } from '../runtime/tensor.ts';

const MIB = 2 ** 20;

/** Workspace of every product: the most that oneDNN asks for, or what is recommended for cuBLASLt on Hopper; see native/ops/matmul.h. */
export function matmulWorkspace(device: Device): Tensor | null {
  const { target } = device;
  return workspace(device, target.kind === 'cuda' ? 32 * MIB : 2 * MIB * target.threads);
}

/** Chunks of more rows than this have a multiple of it, so that tiles of products are whole. */
const ROWS = 1024;

/** Default number of rows of a chunk: enough for products at full speed (arXiv 2407.15892, section 4: M >= C). */
export function defaultChunkSize(N: number, C: number): number {
  return evenChunkSize(N, Math.max(roundUp(C, ROWS), ROWS));
}

/** Rows of a chunk, at most `most`. It takes no more chunks than `most` would, but makes them nearly equal: no tiny one at the end. */
export function evenChunkSize(N: number, most: number): number {
  const numChunks = Math.ceil(N / most);
  return numChunks <= 1 ? Math.max(N, 1) : Math.min(most, roundUp(N / numChunks, ROWS));
}

/** Workspace for the logits (M,V) of one chunk. On CUDA it has a few more columns, so that rows begin at multiples of 128 bytes for any V. */
export function logitsWorkspace(device: Device, M: number, V: number, dtype: Dtype): Tensor {
  const cols = device.target.kind === 'cuda' ? roundUp(V, 64) : V;
  return empty([M, cols], { dtype, device, category: 'workspace' });
}

/** Number of partial sums that an op adds in a fixed order: on CUDA two for each of the 132 multiprocessors of an H100 or H200. */
export function numPartials({ target }: Device): number {
  return target.kind === 'cuda' ? 2 * 132 : 64;
}

/** Workspace of embedding_backward for N tokens; see native/ops/embedding.h. */
export function sortWorkspace(device: Device, N: number): Tensor | null {
  return workspace(device, (device.target.kind === 'cuda' ? 16 : 4) * N);
}

interface AttentionSizes {
  B: number;
  T: number;
  H: number;
  G: number;
  D: number;
  dtype: Dtype;
  hasDocuments: boolean;
}

/** Tile sizes of attention on the CPU; see native/ops/attention.h. */
const QUERIES = 128;
const KEYS = 256;

/** Whether cuDNN's attention may run; see native/cuda/attention/cudnn_attention.h. */
function mayUseCudnn({ target }: Device, { T, D, dtype, hasDocuments }: AttentionSizes): boolean {
  const isChosen = target.kind === 'cuda' && target.attention === 'cudnn';
  return isChosen && dtype === 'bfloat16' && !hasDocuments && T % 128 === 0 && D % 8 === 0 && D <= 256;
}

export function attentionForwardWorkspace(device: Device, sizes: AttentionSizes): Tensor | null {
  const { target } = device;
  const { D, dtype } = sizes;
  if (target.kind === 'cuda') return workspace(device, mayUseCudnn(device, sizes) ? MIB : 0);
  const perThread = QUERIES * KEYS + 2 * KEYS * D + 2 * QUERIES * D + 2 * QUERIES;
  return workspace(device, target.threads * perThread * dtypes[computeDtype(dtype)].bytes);
}

/** Rows of all heads that keep cuDNN's backward busy in one launch: eight tiles of 128 rows for each of 132 multiprocessors. */
const CUDNN_ROWS = 128 * 132 * 8;

function cudnnBackwardBytes({ B, T, H, G, D }: AttentionSizes): number {
  const headsPerGroup = H / G;
  let numGroups = 1;
  while (numGroups < G && (G % numGroups !== 0 || B * T * headsPerGroup * numGroups < CUDNN_ROWS)) numGroups++;
  const rows = B * T * headsPerGroup * numGroups;
  return rows * (4 * D + 4 + (headsPerGroup > 1 ? 4 * D : 0)) + MIB;
}

export function attentionBackwardWorkspace(device: Device, sizes: AttentionSizes): Tensor | null {
  const { target } = device;
  const { B, T, H, D, dtype } = sizes;
  const delta = B * H * T;
  if (target.kind === 'cuda') {
    return workspace(device, Math.max(delta * 4, mayUseCudnn(device, sizes) ? cudnnBackwardBytes(sizes) : 0));
  }
  const perThread = 2 * QUERIES * KEYS + 4 * KEYS * D + 2 * QUERIES * D;
  const dq = dtype === 'bfloat16' ? delta * D : 0;
  return workspace(device, (target.threads * perThread + delta + dq) * dtypes[computeDtype(dtype)].bytes);
}

/** A workspace of `bytes`, owned by the current scope; null for 0. */
function workspace(device: Device, bytes: number): Tensor | null {
  return bytes === 0 ? null : empty([Math.ceil(bytes / 4)], { dtype: 'float32', device, category: 'workspace' });
}
