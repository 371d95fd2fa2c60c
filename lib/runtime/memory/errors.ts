// Out-of-memory errors. The device stays usable after one.
import { type Category, emptyBreakdown, formatBytes, type MemoryBreakdown } from './statistics.ts';

export interface OutOfMemoryDetails {
  /** Requested bytes. */
  requestedBytes: number;
  /** Upper bound of the arena in bytes. */
  limitBytes: number;
  /** Live bytes by category when the allocation failed. */
  breakdown: MemoryBreakdown;
}

/** Thrown if an allocation would exceed the device's `memoryLimit`, or if the device has no memory left. */
export class OutOfMemoryError extends Error implements OutOfMemoryDetails {
  override readonly name = 'OutOfMemoryError';
  readonly code = 'OUT_OF_MEMORY';
  readonly requestedBytes: number;
  readonly limitBytes: number;
  readonly breakdown: MemoryBreakdown;

  constructor(message: string, details: OutOfMemoryDetails, cause?: unknown) {
    super(message, { cause });
    this.requestedBytes = details.requestedBytes;
    this.limitBytes = details.limitBytes;
    this.breakdown = details.breakdown;
  }
}

/** The error of an allocation that does not fit in a device's arena. */
export function arenaOutOfMemory(
  device: string,
  category: Category,
  details: OutOfMemoryDetails,
  cause?: unknown,
): OutOfMemoryError {
  const { requestedBytes, limitBytes, breakdown } = details;
  const held = sorted(breakdown).map(([name, bytes]) => `${name} ${formatBytes(bytes)}`);
  const wanted = { ...breakdown, [category]: breakdown[category] + requestedBytes };
  return new OutOfMemoryError(
    `${device}: out of memory: ${formatBytes(requestedBytes)} more do not fit into ${formatBytes(limitBytes)}. ` +
      `Wanted: ${category}. Held: ${held.join(', ') || 'nothing'}. ${advice(wanted)}`,
    details,
    cause,
  );
}

/** The error of a host slab that does not fit in `hostMemoryLimit`, or, with a cause, in what the host has left. */
export function hostSlabOutOfMemory(
  device: string,
  requestedBytes: number,
  limitBytes: number,
  cause?: unknown,
): OutOfMemoryError {
  const limit = formatBytes(limitBytes);
  const why = cause
    ? `could not be allocated (${(cause as Error).message}), although hostMemoryLimit allows ${limit}`
    : `do not fit in hostMemoryLimit ${limit}`;
  return new OutOfMemoryError(
    `${device}: out of host memory: ${formatBytes(requestedBytes)} for inputs of layers ${why}. ` +
      'Fewer offloadedInputs, a shorter sequence, a smaller batch or a larger hostMemoryLimit would help.',
    { requestedBytes, limitBytes, breakdown: emptyBreakdown() },
    cause,
  );
}

/** The error of a copy of elements on the host. No arena limits it, so there is no breakdown. */
export function hostOutOfMemory(what: string, requestedBytes: number, cause: unknown): OutOfMemoryError {
  const details = { requestedBytes, limitBytes: Infinity, breakdown: emptyBreakdown() };
  return new OutOfMemoryError(
    `${what}: the host has no memory left for ${formatBytes(requestedBytes)} more`,
    details,
    cause,
  );
}

/** Ways to use less memory, by category. */
const REMEDIES: Record<Category, readonly string[]> = {
  parameter: ["dtype: 'bfloat16'", 'a smaller model'],
  gradient: ['LoRA', "gradientDtype: 'bfloat16'", 'optimizer.inBackward'],
  optimizer: ['LoRA', 'stateBits: 8', 'masterWeights: false'],
  activation: ["recompute: 'layer'", 'a shorter sequence', 'a smaller batch'],
  checkpoint: ['a shorter sequence', 'a smaller batch'],
  workspace: ['smaller chunks (chunkSize, chunkSizes)'],
  other: [],
};
/** Categories with a smaller share of the total get no advice. */
const WORTH_SAVING = 0.2;

/** Remedies for the largest categories. */
function advice(wanted: MemoryBreakdown): string {
  const total = Object.values(wanted).reduce((sum, bytes) => sum + bytes, 0);
  const large = sorted(wanted).filter(([, bytes]) => bytes >= WORTH_SAVING * total);
  const remedies = new Set(large.flatMap(([category]) => REMEDIES[category]));
  return `${either([...remedies, 'a larger memoryLimit'])} would help, if not in use already.`;
}

/** 'a, b or c' */
export function either(remedies: readonly string[]): string {
  const last = remedies.at(-1)!;
  return remedies.length > 1 ? `${remedies.slice(0, -1).join(', ')} or ${last}` : last;
}

/** The categories in use, largest first. */
function sorted(breakdown: MemoryBreakdown): [Category, number][] {
  const entries = Object.entries(breakdown) as [Category, number][];
  return entries.filter(([, bytes]) => bytes > 0).sort(([, a], [, b]) => b - a);
}
