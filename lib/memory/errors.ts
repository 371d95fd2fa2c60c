// Errors of memory. Both leave the device usable.
import { emptyBreakdown, formatBytes, type MemoryBreakdown } from './statistics.ts';

/** Thrown when an allocation would pass the device's `memoryLimit`, or the device has no memory left. */
export class OutOfMemoryError extends Error {
  override readonly name = 'OutOfMemoryError';
  readonly code = 'OUT_OF_MEMORY';
  /** Bytes that were asked for. */
  readonly requestedBytes: number;
  /** Upper bound of the arena in bytes. */
  readonly limitBytes: number;
  /** Live bytes by category when the allocation failed. */
  readonly breakdown: MemoryBreakdown;

  constructor(device: string, requestedBytes: number, limitBytes: number, breakdown: MemoryBreakdown, cause?: unknown) {
    const held = Object.entries(breakdown)
      .filter(([, bytes]) => bytes > 0)
      .sort(([, a], [, b]) => b - a)
      .map(([category, bytes]) => `${category} ${formatBytes(bytes)}`);
    super(
      `${device}: out of memory: ${formatBytes(requestedBytes)} more do not fit into ${formatBytes(limitBytes)}. ` +
        `Held: ${held.join(', ') || 'nothing'}. Smaller chunks (chunkSize), recompute: 'layer', a shorter sequence or a ` +
        'larger memoryLimit would help.',
      { cause },
    );
    this.requestedBytes = requestedBytes;
    this.limitBytes = limitBytes;
    this.breakdown = breakdown;
  }
}

/** Where the host has no memory for a copy of elements: no arena bounds that, and nothing is held. */
export function hostOutOfMemory(what: string, requestedBytes: number, cause: unknown): OutOfMemoryError {
  const error = new OutOfMemoryError('host', requestedBytes, Infinity, emptyBreakdown(), cause);
  error.message = `${what}: the host has no memory left for ${formatBytes(requestedBytes)} more`;
  return error;
}
