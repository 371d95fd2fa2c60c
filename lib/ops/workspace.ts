// Scratch memory of kernels as a function of op, shapes, dtype and target, and of nothing else, so that `meta` counts the same bytes.
import type { Device } from '../runtime/device.ts';
import { computeDtype, type Dtype, dtypes } from '../runtime/dtype.ts';
import { empty, type Tensor } from '../runtime/tensor.ts';

const MIB = 2 ** 20;

/** Given to every product: what oneDNN asks for at most, and what cuBLASLt is recommended on Hopper; see native/ops/matmul.h. */
export function matmulWorkspace(device: Device): Tensor | null {
  const { target } = device;
  return workspace(device, target.kind === 'cuda' ? 32 * MIB : 2 * MIB * target.threads);
}

/** Rows of a chunk are a multiple of this where there are as many: tiles of products are then whole. */
const ROWS = 1024;

/** Rows of a chunk where the caller names none: enough for products at full speed (arXiv 2407.15892, section 4: M >= C). */
export function defaultChunkSize(N: number, C: number): number {
  return evenChunkSize(N, Math.max(roundUp(C, ROWS), ROWS));
}

/** Rows of the chunks that N rows take if none may have more than `most`: as many chunks, near equal, and not a tiny one at the end. */
export function evenChunkSize(N: number, most: number): number {
  const numChunks = Math.ceil(N / most);
  return numChunks <= 1 ? Math.max(N, 1) : Math.min(most, roundUp(N / numChunks, ROWS));
}

/** Logits (M,V) of one chunk, as (M, V or a little more): on CUDA rows begin at multiples of 128 bytes, whatever V is. */
export function logitsWorkspace(device: Device, M: number, V: number, dtype: Dtype): Tensor {
  const cols = device.target.kind === 'cuda' ? roundUp(V, 64) : V;
  return empty([M, cols], { dtype, device, category: 'workspace' });
}

function roundUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}

/** Parts that an op sums on its own and then adds in a fixed order: on CUDA two blocks for each of an H200's multiprocessors. */
export function numPartials({ target }: Device): number {
  return target.kind === 'cuda' ? 2 * 132 : 64;
}

/** Given to embedding_backward for N tokens; see native/ops/embedding.h. */
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

/** Tiles of the CPU's attention; see native/ops/attention.h. */
const QUERIES = 128;
const KEYS = 256;

/** Where cuDNN's attention may run; see native/cuda/attention/cudnn_attention.h. */
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

/** Rows of all heads in one launch of cuDNN's backward, from which more do not make it faster: eight tiles of 128 for each of 132 SMs. */
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

/** Scratch of `bytes`; null for 0. Belongs to the scope that it is made in. */
function workspace(device: Device, bytes: number): Tensor | null {
  return bytes === 0 ? null : empty([Math.ceil(bytes / 4)], { dtype: 'float32', device, category: 'workspace' });
}
