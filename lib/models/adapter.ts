// Types that describe the low-rank adapters of a model's projections; see lora.ts.
import type { Parameter } from '../autograd/parameter.ts';
import type { LowRankAdapter } from '../ops/low_rank.ts';

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

/** Modules that get adapters unless some are named. */
export const DEFAULT_MODULES: readonly LoraModule[] = [
  ...LORA_MODULES.filter((name) => name !== 'lm_head'),
  ...FUSED_MODULES,
];

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
