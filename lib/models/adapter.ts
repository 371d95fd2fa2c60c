// Types that describe the low-rank adapters of a model's projections; see lora.ts.
import type { Parameter } from '../autograd/parameter.ts';
import type { LowRankAdapter } from '../ops/low_rank.ts';
import type { DecoderConfig } from './decoder_config.ts';

/** Projections that can have an adapter, as checkpoints name them. */
export const LORA_MODULES = [
  'q_proj',
  'k_proj',
  'v_proj',
  'o_proj',
  'gate_proj',
  'up_proj',
  'down_proj',
  'lm_head',
] as const;
/** The same in models where one weight holds several projections; an adapter is then of all of them together. */
export const FUSED_MODULES = ['qkv_proj', 'gate_up_proj'] as const;
export type LoraModule = (typeof LORA_MODULES)[number] | (typeof FUSED_MODULES)[number];

/** Those of an MLP. */
const MLP_MODULES: readonly LoraModule[] = ['gate_proj', 'up_proj', 'down_proj', 'gate_up_proj'];

/**
 * The modules that get adapters: those named, or all but lm_head. In a model with mixtures of experts the MLPs have none, and unless some are
 * named, all other modules do.
 * @throws RangeError if a module of an MLP is named there
 */
export function adaptedModules(
  { layers }: Pick<DecoderConfig, 'layers'>,
  named: readonly LoraModule[] | undefined,
): readonly LoraModule[] {
  const isMixture = layers.some(({ mlp }) => mlp.experts);
  const ofMlp = isMixture ? named?.find((name) => MLP_MODULES.includes(name)) : undefined;
  if (ofMlp)
    throw new RangeError(`addLora: module '${ofMlp}' cannot have adapters in a model with mixtures of experts`);
  if (named) return named;
  return [...LORA_MODULES, ...FUSED_MODULES].filter(
    (name) => name !== 'lm_head' && !(isMixture && MLP_MODULES.includes(name)),
  );
}

/** The place, rank and alpha of one adapter. */
export interface AdapterLayout {
  /** The parameter's name without '.weight': 'model.layers.0.self_attn.q_proj'. */
  path: string;
  rank: number;
  alpha: number;
}

/** Lists each adapter by itself, as an adapter file does; `LoraOptions` describe them all at once. */
export interface LoraLayout {
  /** In the order of the model's projections. */
  adapters: readonly AdapterLayout[];
  dropout: number;
  useRslora: boolean;
  seed: number;
}

/** One adapter, and the parameter that it changes. */
export interface Adapter extends LowRankAdapter, AdapterLayout {
  a: Parameter;
  b: Parameter;
}

/** A model's adapters. */
export interface Lora {
  layout: LoraLayout;
  adapters: ReadonlyMap<string, Adapter>;
  /** Closes the adapters' file, if it was kept open because loading rounded its values. */
  close?(): void;
}
