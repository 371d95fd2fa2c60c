// All memory of one device: one range of addresses that grows at its end, allocated by best fit. On `meta` the same bookkeeping
// runs without memory, so a step's peak on `meta` equals its peak on the device that `meta` imitates.
import { roundUp } from '../shape.ts';
import { arenaOutOfMemory } from './errors.ts';
import { FreeList } from './free_list.ts';
import {
  type BlockContent,
  type Category,
  emptyBreakdown,
  type MemoryStatistics,
  type TimelineEvent,
} from './statistics.ts';

/** Alignment of every allocation in bytes, on every device. */
export const ALIGNMENT = 512;
/** Bytes before and after each block of a debug arena. */
const RED_ZONE = 512;
/** Fills new and freed memory of a debug arena: NaN in every floating dtype, -1 in i32. */
const POISON = 0xff;
const RED_ZONE_FILL = 0xa5;

/** What an arena needs of its device. Offsets and sizes in bytes. */
export interface ArenaMemory {
  readonly name: string;
  readonly granularity: number;
  /** Maps memory to [offset, offset + bytes). Throws an error with code 'OUT_OF_MEMORY' if there is none left. */
  map(offset: number, bytes: number): void;
  /** Both are enqueued and run after the commands before them. */
  fill(offset: number, value: number, bytes: number): void;
  check(offset: number, value: number, bytes: number, what: string): void;
  /** Enqueued: commands from here on run after the copy with this event. */
  waitFor(event: number): void;
}

/** Free bytes that a copy beside commands may still use, until its event. */
interface Busy {
  readonly begin: number;
  readonly end: number;
  readonly event: number;
}

export interface Block {
  readonly offset: number;
  readonly size: number;
  readonly category: Category;
}

export interface ArenaOptions {
  memoryLimit: number;
  /** Red zones around blocks, checked on release; freed and new memory is filled with NaN. */
  debug: boolean;
}

export class Arena {
  readonly #memory: ArenaMemory;
  readonly #options: ArenaOptions;
  readonly #free = new FreeList();
  #busy: Busy[] = [];
  #mapped = 0;
  #live = emptyBreakdown();
  #liveBytes = 0;
  #peak = emptyBreakdown();
  #peakBytes = 0;
  #highestEnd = 0;
  #numAllocations = 0;
  #timeline: TimelineEvent[] | null = null;

  constructor(memory: ArenaMemory, options: ArenaOptions) {
    this.#memory = memory;
    this.#options = options;
  }

  /**
   * A block of at least `bytes` of uninitialised memory. After an OutOfMemoryError the arena stays usable.
   * @param content what a timeline says of it
   */
  allocate(bytes: number, category: Category, content: BlockContent | null = null): Block {
    const size = roundUp(Math.max(bytes, 1), ALIGNMENT);
    const zone = this.#options.debug ? RED_ZONE : 0;
    const whole = size + 2 * zone;
    const start = this.#free.find(whole);
    this.#grow(start + whole, bytes, category);
    this.#free.take(start, whole);
    this.#waitForBytes(start, start + whole);
    const block: Block = { offset: start + zone, size, category };
    if (zone) {
      this.#memory.fill(start, RED_ZONE_FILL, zone);
      this.#memory.fill(block.offset, POISON, size);
      this.#memory.fill(block.offset + size, RED_ZONE_FILL, zone);
    }
    this.#numAllocations += 1;
    this.#account(size, block, content);
    return block;
  }

  /**
   * Frees a block at once. Queued commands that still use it run before those of its next owner.
   * @param after event of an enqueued copy beside commands that uses the block. The allocation that gets bytes of it next has the commands
   *   wait for the copy. Which bytes are free does not depend on the copy, so that `meta` counts the same
   */
  release(block: Block, after?: number): void {
    const zone = this.#options.debug ? RED_ZONE : 0;
    if (after !== undefined) {
      if (zone)
        this.waitFor(after); // the check and the poison are commands of now
      else this.#busy.push({ begin: block.offset, end: block.offset + block.size, event: after });
    }
    if (zone) {
      const what = `${this.#memory.name}: red zone of a ${block.category} block of ${block.size} bytes`;
      this.#memory.check(block.offset - zone, RED_ZONE_FILL, zone, `${what} (before it)`);
      this.#memory.check(block.offset + block.size, RED_ZONE_FILL, zone, `${what} (after it)`);
      this.#memory.fill(block.offset, POISON, block.size);
    }
    this.#free.give(block.offset - zone, block.size + 2 * zone);
    this.#account(-block.size, block, null);
  }

  /** Commands from here on run after the copy with this event; nothing waits for it a second time. */
  waitFor(event: number): void {
    this.#memory.waitFor(event);
    this.#busy = this.#busy.filter((busy) => busy.event !== event);
  }

  statistics(): Omit<MemoryStatistics, 'hostBytes'> {
    return {
      liveBytes: this.#liveBytes,
      peakBytes: this.#peakBytes,
      reservedBytes: roundUp(this.#highestEnd, this.#memory.granularity),
      live: { ...this.#live },
      peak: { ...this.#peak },
      numAllocations: this.#numAllocations,
    };
  }

  /** Restarts the peaks from the memory in use now. */
  resetPeak(): void {
    this.#peakBytes = this.#liveBytes;
    this.#peak = { ...this.#live };
    this.#highestEnd = this.#free.end;
  }

  /**
   * Records every allocation and release until stopTimeline().
   * @param events where they are added, at once. @default a new array
   */
  startTimeline(events: TimelineEvent[] = []): void {
    this.#timeline = events;
  }
  stopTimeline(): TimelineEvent[] {
    const events = this.#timeline ?? [];
    this.#timeline = null;
    return events;
  }

  #grow(end: number, requestedBytes: number, category: Category): void {
    const { memoryLimit } = this.#options;
    const { granularity, name } = this.#memory;
    const outOfMemory = (limitBytes: number, cause?: unknown) =>
      arenaOutOfMemory(name, category, { requestedBytes, limitBytes, breakdown: { ...this.#live } }, cause);
    if (end > memoryLimit) throw outOfMemory(memoryLimit);
    if (end > this.#mapped) {
      const target = roundUp(end, granularity);
      try {
        this.#memory.map(this.#mapped, target - this.#mapped);
      } catch (error) {
        if ((error as { code?: string }).code !== 'OUT_OF_MEMORY') throw error;
        throw outOfMemory(this.#mapped, error);
      }
      this.#mapped = target;
    }
    this.#highestEnd = Math.max(this.#highestEnd, end);
  }

  #waitForBytes(begin: number, end: number): void {
    if (this.#busy.length === 0) return;
    const met = this.#busy.filter((busy) => busy.begin < end && begin < busy.end);
    for (const event of new Set(met.map(({ event }) => event))) this.waitFor(event);
  }

  #account(bytes: number, { offset, category }: Block, content: BlockContent | null): void {
    this.#live[category] += bytes;
    this.#liveBytes += bytes;
    if (this.#liveBytes > this.#peakBytes) {
      this.#peakBytes = this.#liveBytes;
      this.#peak = { ...this.#live };
    }
    this.#timeline?.push({ bytes, category, liveBytes: this.#liveBytes, offset, content });
  }
}
