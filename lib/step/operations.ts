// Counts the operations of a training step from shapes: those of products and attention, which take nearly all of its time.
import { adaptedModules, type LoraLayout, type LoraModule } from '../models/adapter.ts';
import type { AttentionSpec, DecoderConfig, LayerSpec, MlpSpec } from '../models/decoder_config.ts';
import type { LoraOptions } from '../models/lora.ts';
import type { StepPolicy } from '../models/policy.ts';
import { segmentsOf } from '../models/segments.ts';

/** Operations of one step. A multiplication counts as one, and so does an addition. */
export interface StepOperations {
  forward: number;
  /** The backward without recomputation. */
  backward: number;
  /** Operations of the forward that the backward recomputes. */
  recomputed: number;
  /** The part of these three that grows with T²: attention's scores and weighted sums. */
  attention: number;
  total: number;
}

/** A step. The operations also depend on the model's config. */
export interface CountedStep {
  B: number;
  T: number;
  policy: StepPolicy;
  /** Adapters instead of full training. */
  lora?: LoraOptions | LoraLayout | null;
  /** Micro-batches of a step. @default 1 */
  accumulationSteps?: number;
}

/** Attention's backward recomputes the scores and takes four more products of the same size; its forward takes two. */
const ATTENTION_BACKWARD = 5 / 2;

interface Counts {
  forward: number;
  backward: number;
}

/**
 * Counts the operations of a step. A product of N rows with a weight (O,I) takes 2·N·O·I, as many for the gradient of its input, and as
 * many for that of its weight if it is trained. Attention takes 4·H·D for each pair of a query and a key that it sees; a sequence counts
 * as one document. Norms, activations, the loss and the optimizer are not counted: their time depends on bytes.
 */
export function stepOperations(config: DecoderConfig, step: CountedStep): StepOperations {
  const { B, T, policy, lora, accumulationSteps = 1 } = step;
  const { attentionHeadGroups: groups = 1 } = policy;
  const N = B * T;
  const rankOf = ranks(config, lora);
  const { vocabSize: V, hiddenSize: C } = config;
  /** Counts of a projection of N rows, with its adapter. */
  const product = (path: string, O: number, I: number): Counts => {
    const whole = 2 * N * O * I;
    const rank = rankOf(path);
    const adapter = 2 * N * rank * (O + I);
    return { forward: whole + adapter, backward: (lora ? 1 : 2) * whole + 2 * adapter };
  };
  const inner = innerLayers(config, policy);
  const sum: StepOperations = { forward: 0, backward: 0, recomputed: 0, attention: 0, total: 0 };
  for (const [i, spec] of config.layers.entries()) {
    const path = `model.layers.${i}`;
    const { numHeads: H, numKeyValueHeads: G, headSize: D } = spec.attention;
    const projections = spec.attention.isFused
      ? product(`${path}.self_attn.qkv_proj`, (H + 2 * G) * D, C)
      : added(
          product(`${path}.self_attn.q_proj`, H * D, C),
          product(`${path}.self_attn.k_proj`, G * D, C),
          ...(spec.attention.areValuesKeys ? [] : [product(`${path}.self_attn.v_proj`, G * D, C)]),
        );
    const output = product(`${path}.self_attn.o_proj`, C, H * D);
    const { gateUp, down } = ofMlp(path, spec.mlp, C, product);
    const pairs = B * 4 * H * D * visiblePairs(T, spec.attention);
    const attention = { forward: pairs, backward: pairs * ATTENTION_BACKWARD };
    const again = runAgain(spec, policy, inner.has(i));
    const ofGroups = inGroups(spec.attention, { N, C, groups, rankOf: (name) => rankOf(`${path}.self_attn.${name}`) });
    const all = added(projections, output, gateUp, down, attention);
    sum.forward += all.forward;
    sum.backward += all.backward;
    sum.recomputed +=
      (groups === 1
        ? again.projections * projections.forward
        : (1 + again.attention) * ofGroups.run + ofGroups.recomputed) +
      again.output * output.forward +
      again.attention * attention.forward +
      again.gateUp * gateUp.forward +
      again.down * down.forward;
    sum.attention += attention.backward + (1 + again.attention) * attention.forward;
  }
  const head = product('lm_head', V, C);
  sum.forward += head.forward;
  sum.backward += head.backward;
  sum.total = sum.forward + sum.backward + sum.recomputed;
  for (const name of Object.keys(sum) as (keyof StepOperations)[]) sum[name] *= accumulationSteps;
  return sum;
}

/** The projections of an MLP. Of a mixture each token counts for every expert that takes it, and gate and up are counted with the router. */
function ofMlp(
  layer: string,
  { intermediateSize: F, isFused, experts }: MlpSpec,
  C: number,
  product: (path: string, O: number, I: number) => Counts,
): { gateUp: Counts; down: Counts } {
  if (experts) {
    const path = `${layer}.${experts.names.block}`;
    const taken = (O: number, I: number) => {
      const one = product(path, O, I);
      return { forward: one.forward * experts.perToken, backward: one.backward * experts.perToken };
    };
    return { gateUp: added(product(path, experts.count, C), taken(2 * F, C)), down: taken(C, F) };
  }
  const path = `${layer}.mlp`;
  const gateUp = isFused
    ? product(`${path}.gate_up_proj`, 2 * F, C)
    : added(product(`${path}.gate_proj`, F, C), product(`${path}.up_proj`, F, C));
  return { gateUp, down: product(`${path}.down_proj`, C, F) };
}

/** Layers whose forward runs again for the next layer's input: all layers of a segment except its last. */
function innerLayers(config: DecoderConfig, policy: StepPolicy): ReadonlySet<number> {
  const inner = new Set(config.layers.keys());
  let end = 0;
  for (const size of segmentsOf(config, policy)) {
    end += size;
    inner.delete(end - 1);
  }
  return inner;
}

/** How often the backward runs each part of a layer's forward. @param isInner whether the forward runs once more for the next layer's input */
function runAgain(
  { norms, mlp }: LayerSpec,
  policy: StepPolicy,
  isInner: boolean,
): Record<'projections' | 'output' | 'attention' | 'gateUp' | 'down', number> {
  const { recompute, keepAttention = false } = policy;
  const mlpSave = mlp.bias || mlp.experts ? 'input' : policy.mlpSave; // of these gate and up are never saved
  const ofLayer = recompute === 'none' ? 0 : 1;
  // Whether the backward runs the MLP's forward again: for gate and up if they are saved, or for a norm that reads its output. With such a
  // norm, 'attention' keeps the output, and gate and up too.
  const isKept = recompute === 'none' || (recompute === 'attention' && norms.mlpOutput !== null);
  const down = !isKept && (mlpSave === 'gateUp' || norms.mlpOutput !== null) ? 1 : 0;
  const gateUp = down + (mlpSave === 'input' ? 1 : 0); // with 'input', the MLP's own backward recomputes gate and up
  const attention = recompute === 'layer' || recompute === 'segments' ? 1 : 0;
  const more = isInner ? 1 : 0;
  const ofHeads = recompute === 'attentionSegments' ? 0 : more;
  const ofAttention = keepAttention ? 0 : ofHeads; // the run for the next layer's input is the one for its own backward
  return {
    projections: ofLayer + ofHeads,
    output: ofLayer + more,
    attention: attention + ofAttention,
    gateUp: gateUp + more,
    down: down + more,
  };
}

/**
 * The projections of attention in groups of heads: operations of a run through all groups, each of which takes the adapters' x·aᵀ again, and
 * those that the projections' own backward takes again: a whole projection for the norm that reads it, or an adapter's x·aᵀ and what is
 * computed with it. A run through all groups comes with each run of attention's forward, and with its backward.
 */
function inGroups(
  { numHeads, numKeyValueHeads, headSize, qkNorm }: AttentionSpec,
  { N, C, groups, rankOf }: { N: number; C: number; groups: number; rankOf: (name: string) => number },
): { run: number; recomputed: number } {
  let [run, recomputed] = [0, 0];
  for (const [name, heads] of [
    ['q_proj', numHeads],
    ['k_proj', numKeyValueHeads],
    ['v_proj', numKeyValueHeads],
  ] as const) {
    const O = heads * headSize;
    const rank = rankOf(name);
    run += 2 * N * (O * C + rank * (groups * C + O));
    if (qkNorm && name !== 'v_proj') recomputed += 2 * N * (O * C + rank * (C + O));
    else if (rank > 0) recomputed += 2 * N * (O * C + rank * C);
  }
  return { run, recomputed };
}

/** Number of pairs of a query and a key that it sees, in one sequence. */
function visiblePairs(T: number, { window }: AttentionSpec): number {
  const seen = window === 0 ? T : Math.min(window, T);
  return (seen * (seen + 1)) / 2 + (T - seen) * seen;
}

function added(...counts: Counts[]): Counts {
  const total = (name: keyof Counts) => counts.reduce((sum, one) => sum + one[name], 0);
  return { forward: total('forward'), backward: total('backward') };
}

/** The rank of a projection's adapter; 0 if it has none. */
function ranks(config: DecoderConfig, lora: LoraOptions | LoraLayout | null | undefined): (path: string) => number {
  if (!lora) return () => 0;
  if ('adapters' in lora) {
    const byPath = new Map(lora.adapters.map(({ path, rank }) => [path, rank]));
    return (path) => byPath.get(path) ?? 0;
  }
  const { rank } = lora;
  const modules = adaptedModules(config, lora.modules);
  return (path) => (modules.includes(path.split('.').at(-1) as LoraModule) ? rank : 0);
}
