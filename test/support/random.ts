// Reproducible random numbers for tests.

/** A generator of numbers in [0, 1) (mulberry32). */
export function generator(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let word = state;
    word = Math.imul(word ^ (word >>> 15), word | 1);
    word ^= word + Math.imul(word ^ (word >>> 7), word | 61);
    return ((word ^ (word >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** `length` normal numbers. */
export function normals(length: number, seed: number, deviation = 1): Float64Array {
  const uniform = generator(seed);
  return Float64Array.from(
    { length },
    () => deviation * Math.sqrt(-2 * Math.log(uniform() + 1e-12)) * Math.cos(2 * Math.PI * uniform()),
  );
}

/** `length` integers in [0, below). */
export function integers(length: number, below: number, seed: number): Int32Array {
  const uniform = generator(seed);
  return Int32Array.from({ length }, () => Math.floor(uniform() * below));
}
