// One token from logits.

export interface SamplingOptions {
  /** Logits are divided by it; 0: always the likeliest token. @default 1 */
  temperature?: number;
  /** Only the k likeliest; 0: all. @default 0 */
  topK?: number;
  /** Only the likeliest whose probabilities add up to p. @default 1 */
  topP?: number;
}

/** @param uniform a number in [0, 1) that decides */
export function sampleToken(
  logits: Float32Array,
  { temperature = 1, topK = 0, topP = 1 }: SamplingOptions,
  uniform: number,
): { id: number; logProbability: number } {
  const best = logits.reduce((best, value, id) => (value > logits[best]! ? id : best), 0);
  if (temperature === 0) return { id: best, logProbability: logProbabilityOf(logits, best, 1) };
  let ids = Array.from(logits.keys());
  if ((topK > 0 && topK < ids.length) || topP < 1) {
    ids.sort((a, b) => logits[b]! - logits[a]! || a - b);
    if (topK > 0) ids = ids.slice(0, topK);
  }
  const weights = ids.map((id) => Math.exp((logits[id]! - logits[best]!) / temperature));
  let total = weights.reduce((sum, weight) => sum + weight, 0);
  if (topP < 1) {
    let kept = 0;
    let sum = 0;
    while (kept < ids.length && sum < topP * total) sum += weights[kept++]!;
    ids.length = kept;
    total = sum;
  }
  let left = uniform * total;
  let i = 0;
  while (i < ids.length - 1 && left >= weights[i]!) left -= weights[i++]!;
  const id = ids[i]!;
  return { id, logProbability: logProbabilityOf(logits, id, temperature) };
}

/** Of a token among all, before any were left out. */
function logProbabilityOf(logits: Float32Array, id: number, temperature: number): number {
  const max = logits.reduce((max, value) => Math.max(max, value), -Infinity);
  const sum = logits.reduce((sum, value) => sum + Math.exp((value - max) / temperature), 0);
  return (logits[id]! - max) / temperature - Math.log(sum);
}
