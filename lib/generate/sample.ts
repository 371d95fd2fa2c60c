// Samples one token from logits in transformers' order: penalty, temperature, then top-k, top-p and min-p.

export interface SamplingOptions {
  /** Divides the logits; 0: always takes the most likely token. @default the model's generation_config.json, else 1 */
  temperature?: number;
  /** Samples only from the k most likely tokens; 0: from all. @default the model's generation_config.json, else 0 */
  topK?: number;
  /** Samples only from the most likely tokens whose probabilities add up to p. @default the model's generation_config.json, else 1 */
  topP?: number;
  /** Samples only from tokens with at least this share of the highest probability. @default the model's generation_config.json, else 0 */
  minP?: number;
  /**
   * Divides the positive logits of tokens that are already in the prompt or the text, and multiplies their negative ones
   * (arXiv 1909.05858). @default the model's generation_config.json, else 1
   */
  repetitionPenalty?: number;
}

/**
 * @param uniform random number in [0, 1)
 * @param seen tokens that are already in the text
 */
export function sampleToken(
  logits: Float32Array,
  options: SamplingOptions,
  uniform: number,
  seen: ReadonlySet<number> = new Set(),
): { id: number; logProbability: number } {
  const { temperature = 1, repetitionPenalty = 1 } = options;
  const scores = repetitionPenalty === 1 ? logits : penalized(logits, seen, repetitionPenalty);
  const best = scores.reduce((best, value, id) => (value > scores[best]! ? id : best), 0);
  const id = temperature === 0 ? best : draw(scores, scores[best]!, { ...options, temperature }, uniform);
  return { id, logProbability: logProbabilityOf(logits, id, temperature || 1) };
}

function penalized(logits: Float32Array, seen: ReadonlySet<number>, penalty: number): Float32Array {
  const scores = logits.slice();
  for (const id of seen) scores[id] = scores[id]! < 0 ? scores[id]! * penalty : scores[id]! / penalty;
  return scores;
}

function draw(
  scores: Float32Array,
  max: number,
  { temperature = 1, topK = 0, topP = 1, minP = 0 }: SamplingOptions,
  uniform: number,
): number {
  const weightOf = (score: number) => Math.exp((score - max) / temperature);
  const isCut = (topK > 0 && topK < scores.length) || topP < 1;
  let ids = isCut ? likeliest(scores, topK || scores.length, topP, weightOf) : Array.from(scores.keys());
  if (minP > 0) ids = ids.filter((id) => weightOf(scores[id]!) >= minP);
  const weights = ids.map((id) => weightOf(scores[id]!));
  let left = uniform * weights.reduce((sum, weight) => sum + weight, 0);
  let i = 0;
  while (i < ids.length - 1 && left >= weights[i]!) left -= weights[i++]!;
  return ids[i]!;
}

/** Of the k most likely ids, those whose weights add up to share p. The most likely come first; among equals, the smallest id. */
function likeliest(scores: Float32Array, k: number, p: number, weightOf: (score: number) => number): number[] {
  const descending = scores.slice().sort().reverse().subarray(0, k); // sorting plain numbers is far faster than sorting ids by a key
  let count = descending.length;
  if (p < 1) {
    const most = p * descending.reduce((sum, score) => sum + weightOf(score), 0);
    let sum = 0;
    for (count = 0; count < descending.length && sum < most; count++) sum += weightOf(descending[count]!);
  }
  const least = descending[count - 1]!;
  const ids: number[] = [];
  for (const [id, score] of scores.entries()) if (score >= least) ids.push(id);
  return ids.sort((a, b) => scores[b]! - scores[a]! || a - b).slice(0, count);
}

/** Log-probability of a token among all tokens, before the penalty and before any token is excluded. */
function logProbabilityOf(logits: Float32Array, id: number, temperature: number): number {
  const max = logits.reduce((max, value) => Math.max(max, value), -Infinity);
  const sum = logits.reduce((sum, value) => sum + Math.exp((value - max) / temperature), 0);
  return (logits[id]! - max) / temperature - Math.log(sum);
}
