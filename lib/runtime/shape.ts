// Shapes: the lengths of a tensor's dimensions.

const MAX_RANK = 4;

/** A frozen copy of a shape. Throws unless it has at most 4 lengths, all integers of 0 or more. */
export function checkShape(op: string, shape: readonly number[]): readonly number[] {
  if (!Array.isArray(shape)) throw new TypeError(`${op}: shape must be an array of lengths, got ${kindOf(shape)}`);
  const copy = [...shape];
  let isValid = copy.length <= MAX_RANK;
  for (const length of copy) isValid &&= Number.isSafeInteger(length) && length >= 0;
  if (!isValid)
    throw new RangeError(`${op}: a shape has at most ${MAX_RANK} lengths, each an integer of 0 or more, got (${copy})`);
  return Object.freeze(copy);
}

/** Number of elements of a shape. */
export function sizeOf(shape: readonly number[]): number {
  let product = 1;
  for (const length of shape) product *= length;
  return product;
}

/** The smallest multiple of `unit` that is not below `value`. */
export function roundUp(value: number, unit: number): number {
  return Math.ceil(value / unit) * unit;
}

/** A value's class, or its type and value, for errors. */
export function kindOf(value: unknown): string {
  return typeof value === 'object' ? (value?.constructor?.name ?? String(value)) : `${typeof value} ${String(value)}`;
}
