// Random numbers and orders by seed: the same everywhere and always.

/** Numbers 0 to length - 1 in the order of an epoch (Fisher-Yates). */
export function shuffled(length: number, seed: number, epoch: number): Int32Array {
  const order = Int32Array.from({ length }, (_, i) => i);
  const random = uniforms(seed, epoch);
  for (let i = order.length - 1; i > 0; i--) {
    const j = Math.floor(random() * (i + 1));
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  return order;
}

/** Numbers in [0, 1) by seed and stream (splitmix32). */
export function uniforms(seed: number, stream: number): () => number {
  let state = Math.imul(seed ^ 0x5bf03635, 0x9e3779b1) ^ Math.imul(stream + 1, 0x85ebca6b);
  return () => {
    state = (state + 0x9e3779b9) | 0;
    let word = state ^ (state >>> 16);
    word = Math.imul(word, 0x21f0aaad);
    word = Math.imul(word ^ (word >>> 15), 0x735a2d97);
    return ((word ^ (word >>> 15)) >>> 0) / 2 ** 32;
  };
}
