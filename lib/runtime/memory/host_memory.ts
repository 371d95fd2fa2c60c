// Memory of the host beside a device's own: one slab, pinned on CUDA, that copies beside commands fill and read. On `meta` it is only
// counted.

import { hostSlabOutOfMemory } from './errors.ts';
import { FreeList } from './free_list.ts';
import { formatBytes } from './statistics.ts';

/** Alignment of every block in bytes. */
const ALIGNMENT = 512;

/** Bytes that a block of `bytes` takes in the slab. */
export function hostBlockBytes(bytes: number): number {
  return Math.ceil(Math.max(bytes, 1) / ALIGNMENT) * ALIGNMENT;
}

/** What host memory needs of its device. Addresses are numbers, sizes bytes. */
export interface HostAllocator {
  readonly name: string;
  /** Throws an error with code 'OUT_OF_MEMORY' if there is none left. */
  allocate(bytes: number): number;
  /** Waits for all commands and copies so far. */
  free(address: number): void;
  /** Frees memory, unless the address is 0, and allocates another, without waiting: both when all commands and copies so far have run. */
  reallocate(address: number, bytes: number): Promise<number>;
}

export interface HostBlock {
  readonly address: number;
  readonly size: number;
}

export class HostMemory {
  readonly #allocator: HostAllocator;
  /** Most bytes of the slab; 0: none is allowed. */
  readonly limit: number;
  readonly #free = new FreeList();
  #address = 0;
  #bytes = 0;
  #liveBytes = 0;
  /** The slab that is being allocated. */
  #coming: Promise<void> | null = null;

  constructor(allocator: HostAllocator, limit: number) {
    this.#allocator = allocator;
    this.limit = limit;
  }

  /** Bytes of the slab; 0 before the first reserve(). */
  get bytes(): number {
    return this.#bytes;
  }
  /** Bytes of its blocks in use. */
  get liveBytes(): number {
    return this.#liveBytes;
  }

  /**
   * Makes sure that blocks of `bytes` in all can be allocated, one after another. A slab that is too small, and empty, is freed first and
   * then allocated anew, of exactly this size. The caller waits for all of that, on CUDA 0.65 s for each GiB; `prepare` does not block.
   * @throws OutOfMemoryError if it does not fit in the limit, or the host has not as much left; then there is no slab
   * @throws Error if the slab is too small and blocks of it are in use, or if another is being allocated
   */
  reserve(bytes: number): void {
    if (!this.#isShort(bytes)) return;
    if (this.#bytes > 0) this.#allocator.free(this.#address);
    this.#bytes = 0;
    try {
      this.#address = this.#allocator.allocate(bytes);
    } catch (error) {
      throw this.#failed(bytes, error);
    }
    this.#bytes = bytes;
  }

  /** Does what `reserve` does, beside what JavaScript does meanwhile. Errors are those of `reserve`. */
  async prepare(bytes: number): Promise<void> {
    while (this.#coming) await this.#coming.catch(() => {}); // whoever asked for it gets its error
    if (!this.#isShort(bytes)) return;
    const before = this.#bytes > 0 ? this.#address : 0;
    this.#bytes = 0;
    this.#coming = this.#replace(before, bytes);
    try {
      await this.#coming;
    } finally {
      this.#coming = null;
    }
  }

  async #replace(before: number, bytes: number): Promise<void> {
    try {
      this.#address = await this.#allocator.reallocate(before, bytes);
    } catch (error) {
      throw this.#failed(bytes, error);
    }
    this.#bytes = bytes;
  }

  /** Whether a slab of `bytes` must be allocated. */
  #isShort(bytes: number): boolean {
    if (this.#liveBytes === 0 ? bytes <= this.#bytes : this.#free.end + bytes <= this.#bytes) return false;
    const { name } = this.#allocator;
    if (this.#coming) {
      throw new Error(`${name}: host memory: ${formatBytes(bytes)} are wanted while another slab is being allocated`);
    }
    if (this.#liveBytes > 0) {
      throw new Error(
        `${name}: host memory: ${formatBytes(bytes)} more do not fit in the slab of ${formatBytes(this.#bytes)}, of which ` +
          `${formatBytes(this.#liveBytes)} are in use by another forward: run its backward, or dispose its tape, first`,
      );
    }
    if (bytes > this.limit) throw hostSlabOutOfMemory(name, bytes, this.limit);
    return true;
  }

  #failed(bytes: number, error: unknown): unknown {
    if ((error as { code?: string }).code !== 'OUT_OF_MEMORY') return error;
    return hostSlabOutOfMemory(this.#allocator.name, bytes, this.limit, error);
  }

  /** A block of at least `bytes`, within what was reserved. */
  allocate(bytes: number): HostBlock {
    const size = hostBlockBytes(bytes);
    const offset = this.#free.find(size);
    if (offset + size > this.#bytes) {
      throw new Error(
        `${this.#allocator.name}: host memory: ${formatBytes(size)} more do not fit in the slab of ${formatBytes(this.#bytes)}, of which ` +
          `${formatBytes(this.#liveBytes)} are in use; reserve() comes first`,
      );
    }
    this.#free.take(offset, size);
    this.#liveBytes += size;
    return { address: this.#address + offset, size };
  }

  /** Frees a block at once: commands, and copies of the stream to the host, that come later may write it. */
  release({ address, size }: HostBlock): void {
    this.#free.give(address - this.#address, size);
    this.#liveBytes -= size;
  }
}
