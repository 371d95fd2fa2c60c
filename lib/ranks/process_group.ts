// Ranks that compute one step together: each has a device, and its part of the batch.
import type { Device } from '../runtime/device.ts';
import { addon, kernels } from '../runtime/native.ts';
import type { Tensor } from '../runtime/tensor.ts';
import { Shards } from './shards.ts';
import type { RankStore } from './store.ts';

/** Most seconds that a collective on the CPU may take. */
const COLLECTIVE_SECONDS = 600;

/** The ranks' devices, connected: by Gloo on the CPU, by NCCL on CUDA. Every rank calls each method in the same order. */
export class ProcessGroup implements Disposable {
  readonly store: RankStore;
  readonly rank: number;
  readonly size: number;
  /** Which part of each tensor is this rank's in `reduceScatter` and `allGather`. */
  readonly shards: Shards;
  readonly #onLoss: () => void;
  #numGathers = 0;

  private constructor(store: RankStore, id: number) {
    this.#onLoss = () => addon().abort_group(id);
    store.failure.addEventListener('abort', this.#onLoss, { once: true });
    this.store = store;
    this.rank = store.place.rank;
    this.size = store.place.size;
    this.shards = new Shards(this.rank, this.size);
  }

  /** Connects a device with those of the other ranks. Dispose the group before the device is closed. */
  static async join(store: RankStore, device: Device): Promise<ProcessGroup> {
    const { id } = device;
    if (id === null) throw new RangeError(`ProcessGroup: ${device} cannot be in a group: there is nothing behind it`);
    const { rank, size } = store.place;
    const kinds = await store.gather('kind of device', device.target.kind);
    if (new Set(kinds).size > 1) {
      throw new Error(`ProcessGroup: all ranks must have the same kind of device, got ${kinds.join(', ')}`);
    }
    const address = addon().join_group(id, rank, size, store.host, COLLECTIVE_SECONDS);
    const addresses = await store.gather('address of device', Buffer.from(address).toString('base64'));
    const group = new ProcessGroup(store, id);
    try {
      await addon().connect_group(
        id,
        addresses.map((text) => new Uint8Array(Buffer.from(text, 'base64'))),
      );
      store.failure.throwIfAborted();
      return group;
    } catch (error) {
      group[Symbol.dispose]();
      throw error;
    }
  }

  /** Values of the host, by rank. */
  async gather<Value>(value: Value): Promise<Value[]> {
    this.#numGathers += 1;
    return await this.store.gather(`gather ${this.#numGathers}`, value);
  }

  /** From here on the loss of a rank ends no collective of the device. */
  [Symbol.dispose](): void {
    this.store.failure.removeEventListener('abort', this.#onLoss);
  }

  /** Overwrites a tensor of the device with the sum over all ranks, the same bits on each. */
  allReduce(tensor: Tensor): void {
    kernels.all_reduce(tensor);
  }

  /** Overwrites this rank's part of a tensor (see `shards`) with the sum over all ranks; its other elements are undefined afterwards. */
  reduceScatter(tensor: Tensor): void {
    kernels.reduce_scatter(tensor, this.shards.length(tensor.size));
  }

  /** Overwrites a tensor with what each rank has in its part of it, the same bits on each. */
  allGather(tensor: Tensor): void {
    kernels.all_gather(tensor, this.shards.length(tensor.size));
  }
}
