// Scratch memory of kernels as a function of op, shapes, dtype and target, and of nothing else, so that `meta` counts the same bytes.
import type { Device } from '../device.ts';
import type { Dtype } from '../dtype.ts';
import { empty, type Tensor } from '../tensor.ts';

/** Scratch of `bytes`; null for 0. Belongs to the scope that it is made in. */
export function workspace(device: Device, bytes: number): Tensor | null {
  return bytes === 0 ? null : empty([Math.ceil(bytes / 4)], { dtype: 'float32', device, category: 'workspace' });
}

/** Given to every product: what cuBLASLt is recommended on Hopper; the most that oneDNN asks for (native/ops/matmul.h). */
export function matmulWorkspace(device: Device): Tensor | null {
  return workspace(device, device.target.kind === 'cuda' ? 32 * 2 ** 20 : 0);
}

/** Rows of a chunk where the caller names none: enough for products at full speed (arXiv 2407.15892, section 4: M >= C). */
export function defaultChunkSize(C: number): number {
  return Math.max(C, 1024);
}

interface AttentionSizes {
  B: number;
  T: number;
  H: number;
  G: number;
  D: number;
  dtype: Dtype;
}

/** See native/ops/attention.h. */
export function attentionForwardWorkspace(device: Device, sizes: AttentionSizes): Tensor | null {
  void sizes;
  return workspace(device, 0);
}

/** See native/ops/attention.h. */
export function attentionBackwardWorkspace(device: Device, sizes: AttentionSizes): Tensor | null {
  void sizes;
  return workspace(device, 0);
}
