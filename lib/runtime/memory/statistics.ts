// How many bytes each category holds, now and at the peak.

/** What a piece of device memory is for. */
export const categories = [
  'parameter',
  'gradient',
  'optimizer',
  'activation',
  'checkpoint',
  'workspace',
  'other',
] as const;
export type Category = (typeof categories)[number];

/** Bytes by category. */
export type MemoryBreakdown = Record<Category, number>;

/** Memory statistics of a device; sizes in bytes. */
export interface MemoryStatistics {
  /** In use now. */
  liveBytes: number;
  /** Most in use at once since the last `resetPeak()`. */
  peakBytes: number;
  /** End of the highest block in use since the last `resetPeak()`, so holes are included. `memoryLimit` limits this number. */
  reservedBytes: number;
  live: MemoryBreakdown;
  /** The categories' shares at the moment of `peakBytes`. */
  peak: MemoryBreakdown;
  numAllocations: number;
  /** Bytes of the host memory beside the device's, which `hostMemoryLimit` limits. */
  hostBytes: number;
}

/** What lies in a block: tensors of one dtype, side by side. */
export interface BlockContent {
  dtype: string;
  shapes: readonly (readonly number[])[];
}

/** One allocation (positive) or release (negative), with the live bytes after it. */
export interface TimelineEvent {
  bytes: number;
  category: Category;
  liveBytes: number;
  /** Where the block begins; that of an allocation is the same until its release. */
  offset: number;
  /** Of an allocation for tensors; null for any other, and for a release. */
  content: BlockContent | null;
}

export function emptyBreakdown(): MemoryBreakdown {
  return { parameter: 0, gradient: 0, optimizer: 0, activation: 0, checkpoint: 0, workspace: 0, other: 0 };
}

/** 1536 → '1.50 KiB'. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
  let unit = 0;
  let value = bytes;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return unit === 0 ? `${value} B` : `${value.toFixed(2)} ${units[unit]}`;
}
