// Scratch memory of kernels as a function of op, shapes, dtype and target, and of nothing else, so that `meta` counts the same bytes.
import type { Device } from '../device.ts';
import { computeDtype, type Dtype, dtypes } from '../dtype.ts';
import { empty, type Tensor } from '../tensor.ts';

const MIB = 2 ** 20;

/** Given to every product: what oneDNN asks for at most, and what cuBLASLt is recommended on Hopper; see native/ops/matmul.h. */
export function matmulWorkspace(device: Device): Tensor | null {
  const { target } = device;
  return workspace(device, target.kind === 'cuda' ? 32 * MIB : 2 * MIB * target.threads);
}

/** Rows of a chunk where the caller names none: enough for products at full speed (arXiv 2407.15892, section 4: M >= C). */
export function defaultChunkSize(C: number): number {
  return Math.max(C, 1024);
}

interface AttentionSizes {
  B: number;
  T: number;
  H: number;
  D: number;
  dtype: Dtype;
}

/** Tiles of the CPU's attention; see native/ops/attention.h. */
const QUERIES = 128;
const KEYS = 256;

export function attentionForwardWorkspace(device: Device, { D, dtype }: AttentionSizes): Tensor | null {
  const { target } = device;
  if (target.kind === 'cuda') return null;
  const perThread = QUERIES * KEYS + 2 * KEYS * D + 2 * QUERIES * D + 2 * QUERIES;
  return workspace(device, target.threads * perThread * dtypes[computeDtype(dtype)].bytes);
}

export function attentionBackwardWorkspace(device: Device, { B, T, H, D, dtype }: AttentionSizes): Tensor | null {
  const { target } = device;
  const delta = B * H * T;
  if (target.kind === 'cuda') return workspace(device, delta * 4);
  const perThread = 2 * QUERIES * KEYS + 4 * KEYS * D + 2 * QUERIES * D;
  const dq = dtype === 'bfloat16' ? delta * D : 0;
  return workspace(device, (target.threads * perThread + delta + dq) * dtypes[computeDtype(dtype)].bytes);
}

/** Scratch of `bytes`; null for 0. Belongs to the scope that it is made in. */
function workspace(device: Device, bytes: number): Tensor | null {
  return bytes === 0 ? null : empty([Math.ceil(bytes / 4)], { dtype: 'float32', device, category: 'workspace' });
}
