// Inputs of layers, or of segments of layers, in host memory between forward and backward. Copies run beside commands: the one to the host
// beside the layer's own forward, the one back beside the backward of the layer after it, so that the device holds two such inputs at once.

import type { InputStore } from '../autograd/region.ts';
import { isFirstRun } from '../autograd/tape.ts';
import { requireInteger } from '../ops/check.ts';
import type { Device } from '../runtime/device.ts';
import { type Dtype, dtypes } from '../runtime/dtype.ts';
import { type HostBlock, hostBlockBytes } from '../runtime/memory/host_memory.ts';
import { empty, type Tensor } from '../runtime/tensor.ts';
import type { DecoderConfig } from './decoder_config.ts';
import type { StepPolicy } from './policy.ts';
import { segmentsOf } from './segments.ts';

interface Rows {
  /** Of the inputs (N,C). */
  N: number;
  dtype: Dtype;
}

/** Bytes of host memory that the forward of N rows takes until its backward. */
export function offloadedBytes({ hiddenSize: C }: DecoderConfig, policy: StepPolicy, { N, dtype }: Rows): number {
  return (policy.offloadedInputs ?? 0) * hostBlockBytes(N * C * dtypes[dtype].bytes);
}

/** The most inputs that a policy can offload: as many as it saves and as the limit has room for, in bytes; 0 if it cannot offload. */
export function mostOffloaded(
  config: DecoderConfig,
  policy: StepPolicy,
  { hostMemoryLimit, ...rows }: Rows & { hostMemoryLimit: number },
): number {
  if (!canOffload(policy.recompute)) return 0;
  const each = offloadedBytes(config, { ...policy, offloadedInputs: 1 }, rows);
  return Math.min(segmentsOf(config, policy).length, Math.floor(hostMemoryLimit / each));
}

/** Whether a policy with this `recompute` can offload: a region's inputs are all that a layer, or a segment, saves of x. */
export function canOffload(recompute: StepPolicy['recompute'] | 'auto'): boolean {
  return recompute === 'attention' || recompute === 'layer' || recompute === 'segments';
}

/**
 * A store for the input of each segment of layers, from first to last; null if the policy offloads none. While a tape records, reserves the
 * host memory for all of them.
 * @throws RangeError if the policy's `recompute` cannot offload, or saves not as many inputs
 * @throws OutOfMemoryError if they do not fit in the device's hostMemoryLimit, or in what the host has left
 */
export function inputStores(
  config: DecoderConfig,
  policy: StepPolicy,
  { N, dtype, device }: Rows & { device: Device },
): InputStore[] | null {
  const { offloadedInputs = 0, recompute } = policy;
  if (offloadedInputs === 0) return null;
  if (!canOffload(recompute)) {
    throw new RangeError(
      `Decoder: offloadedInputs ${offloadedInputs} is for recompute 'attention', 'layer' and 'segments', got '${recompute}'`,
    );
  }
  const count = segmentsOf(config, policy).length;
  requireInteger('Decoder', 'offloadedInputs', offloadedInputs, { min: 0, max: count });
  if (isFirstRun()) device.host.reserve(offloadedBytes(config, policy, { N, dtype }));
  const stores: StoredInput[] = [];
  for (let i = 0; i < count; i++) stores.push(new StoredInput(i < offloadedInputs, stores[i - 1] ?? null));
  return stores;
}

/** The input of one segment: in host memory, or, if it is not offloaded, on its device. */
class StoredInput implements InputStore {
  readonly #isOffloaded: boolean;
  /** That of the segment before. */
  readonly #before: StoredInput | null;
  #host: { block: HostBlock; shape: readonly number[]; dtype: Dtype; device: Device; requiresGrad: boolean } | null =
    null;
  /** On the device: what is not offloaded, or what comes back. */
  #x: Tensor | null = null;
  /** Of the copy that commands have not waited for. */
  #event: number | null = null;

  constructor(isOffloaded: boolean, before: StoredInput | null) {
    this.#isOffloaded = isOffloaded;
    this.#before = before;
  }

  /** @param inputs x (N,C), which must not change until it is freed */
  put([x]: readonly [Tensor]): void {
    if (!this.#isOffloaded) {
      this.#x = x.alias().keep();
      this.#x.requiresGrad = x.requiresGrad;
      return;
    }
    const { device, shape, dtype, sizeBytes, requiresGrad } = x;
    const block = device.host.allocate(sizeBytes);
    this.#host = { block, shape, dtype, device, requiresGrad };
    this.#event = device.copyBeside('toHost', block.address, x.view[0]!, sizeBytes);
    x.recordEvent(this.#event);
  }

  /** Also starts the copy back of the segment before. */
  take(): [Tensor] {
    this.#fetch();
    this.#wait();
    if (this.#before) this.#before.#fetch();
    return [this.#x!];
  }

  /** Starts the copy back, unless it is under way or there is none. */
  #fetch(): void {
    if (this.#x || !this.#host) return;
    const { block, shape, dtype, device, requiresGrad } = this.#host;
    this.#wait(); // for the copy to the host, in another stream
    const x = empty(shape, { dtype, device, category: 'checkpoint' }).keep();
    x.requiresGrad = requiresGrad;
    this.#x = x;
    this.#event = device.copyBeside('toDevice', x.view[0]!, block.address, x.sizeBytes);
  }

  /** Commands and copies from here on run after the copy of this input. */
  #wait(): void {
    if (this.#event !== null) this.#host!.device.arena.waitFor(this.#event);
    this.#event = null;
  }

  dispose(): void {
    this.#wait(); // whoever gets the memory next
    this.#x?.dispose();
    this.#x = null;
    this.#host?.device.host.release(this.#host.block);
    this.#host = null;
  }
}
