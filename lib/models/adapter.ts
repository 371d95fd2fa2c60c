// Low-rank adapters of a model's projections: where they are and what they are made of; see lora.ts.
import type { Parameter } from '../autograd/parameter.ts';
import type { LowRankAdapter } from '../ops/low_rank.ts';

/** Projections that can have an adapter, by their names in checkpoints. */
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
export type LoraModule = (typeof LORA_MODULES)[number];

/** Where one adapter is and what its size and factor come from. */
export interface AdapterLayout {
  /** The parameter's name without '.weight': 'model.layers.0.self_attn.q_proj'. */
  path: string;
  rank: number;
  alpha: number;
}

/** Adapters one by one: what `LoraOptions` say for all, and what a file of adapters has. */
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
  /** Closes the file that the adapters were loaded from, where it holds more than their dtype does. */
  close?(): void;
}
