// How long a step takes on a GPU: its operations and bytes over rates that benchmarks have measured. Nothing is timed here.
import type { DecoderConfig } from '../models/decoder_config.ts';
import { offloadedBytes } from '../models/offload.ts';
import { type CountedStep, stepOperations } from './operations.ts';
import type { StepShape } from './simulate.ts';

/** Rates of a GPU in bf16. */
export interface Rates {
  /** Operations a second of products. */
  products: number;
  /** Operations a second of cuDNN's attention, forward and backward together, by head size. */
  attention: Readonly<Partial<Record<number, number>>>;
  /** Bytes a second of what lies between products: norms, gated units, the loss, the optimizer. */
  memory: number;
  /** Bytes a second between GPU and pinned memory of the host, one way. */
  hostLink: number;
}

/**
 * From benchmarks/results: h100_2026-11-28.json and h200_2026-11-26.json, `native`. products: 'mlp', N 16384, chunks of 4096. attention:
 * 'chosen forward' and 'chosen backward', for head size 128 of T 16384. memory: 'glu_forward, N 8192'.
 */
export const gpuRates = {
  H100: {
    products: 634e12,
    attention: { 64: 420e12, 80: 355e12, 96: 417e12, 128: 585e12, 256: 449e12 },
    memory: 2.86e12,
    hostLink: 52e9,
  },
  H200: {
    products: 640e12,
    attention: { 64: 425e12, 80: 357e12, 96: 422e12, 128: 597e12, 256: 459e12 },
    memory: 4.04e12,
    hostLink: 52e9,
  },
} as const satisfies Record<string, Rates>;

/** A step whose time is estimated. */
export type TimedStep = CountedStep &
  Pick<StepShape, 'dtype' | 'gradientDtype' | 'isPacked' | 'masterWeights' | 'stateBits' | 'like'>;

/**
 * Seconds of a step: operations and bytes one after another. Inputs that are offloaded go out beside the forward and come back beside the
 * backward; what of their copies takes longer is added. null where a rate is not known: other dtypes than bf16, weights in 4 bits, head sizes
 * that were not measured, the CPU, and where attention is not cuDNN's over whole sequences (packed documents, T that is no multiple of 128,
 * windows, soft-caps), and mixtures of experts.
 */
export function stepSeconds(config: DecoderConfig, step: TimedStep, rates: Rates): number | null {
  const { B, T, policy, dtype = 'float32', isPacked = false, like, accumulationSteps = 1 } = step;
  const isCudnn = like?.kind === 'cuda' && like.attention === 'cudnn';
  if (dtype !== 'bfloat16' || config.quantization || isPacked || !isCudnn) return null;
  if (config.layers.some(({ mlp }) => mlp.experts)) return null;
  const specs = config.layers.map(({ attention }) => attention);
  if (T % 128 !== 0 || specs.some(({ window, softcap }) => softcap > 0 || (window > 0 && window < T))) return null;
  const [headSize, ...others] = new Set(specs.map((spec) => spec.headSize));
  const ofAttention = others.length === 0 ? rates.attention[headSize!] : undefined;
  if (ofAttention === undefined) return null;
  const { forward, total, attention } = stepOperations(config, step);
  const computed =
    (total - attention) / rates.products + attention / ofAttention + stepTraffic(config, step) / rates.memory;
  const ofForward = (computed * forward) / total;
  const copied = (accumulationSteps * offloadedBytes(config, policy, { N: B * T, dtype })) / rates.hostLink;
  return computed + Math.max(0, copied - ofForward) + Math.max(0, copied - (computed - ofForward));
}

/** {@link stepSeconds} on each GPU whose rates are known, by its name. */
export function secondsByGpu(config: DecoderConfig, step: TimedStep): Partial<Record<keyof typeof gpuRates, number>> {
  const found = Object.entries(gpuRates).map(([name, rates]) => [name, stepSeconds(config, step, rates)] as const);
  return Object.fromEntries(found.filter(([, seconds]) => seconds !== null));
}

/**
 * Bytes that a step in bf16 reads and writes outside of products and attention, for activations and for the optimizer. A norm and its
 * backward read or write 2 and 3 rows of C, a sum 3; rope 2 of each head; the gated unit 3 rows of F, its backward 6; the loss 2 of V.
 */
export function stepTraffic(config: DecoderConfig, step: TimedStep): number {
  const { B, T, lora, accumulationSteps = 1, masterWeights = true, stateBits = 32, gradientDtype = 'float32' } = step;
  const { forward: once, recomputed } = stepOperations(config, step);
  const { vocabSize: V, hiddenSize: C } = config;
  let [forward, backward] = [0, 0];
  let weights = (config.tieWordEmbeddings ? 1 : 2) * V * C;
  for (const { attention, mlp, norms } of config.layers) {
    const { numHeads: H, numKeyValueHeads: G, headSize: D } = attention;
    const F = mlp.intermediateSize;
    const numNorms = Object.values(norms).filter((norm) => norm !== null).length;
    const rope = 2 * (H + G) * D;
    forward += 2 * numNorms * C + 6 * C + rope + 3 * F;
    backward += 3 * numNorms * C + 6 * C + rope + 6 * F;
    weights += (2 * H + 2 * G) * D * C + 3 * C * F;
  }
  const elements = B * T * accumulationSteps * (forward * (1 + recomputed / once) + backward + 2 * V);
  const ofGradient = 2 * (gradientDtype === 'bfloat16' ? 2 : 4); // written by the backward, read by the optimizer
  const ofStates = (2 * 2 * stateBits) / 8;
  const ofWeight = 2 * 2 + (masterWeights ? 2 * 4 : 0);
  return 2 * elements + (lora ? 0 : weights * (ofGradient + ofStates + ofWeight)); // adapters are small
}
