// LoRA: the model stays as it is, and each chosen projection gets a trained product of two thin matrices (arXiv 2106.09685).
import { kernels } from '../native.ts';
import { requireCount, requireFinite } from '../ops/check.ts';
import type { LowRankAdapter } from '../ops/low_rank.ts';
import { matmulWorkspace } from '../ops/workspace.ts';
import { tidy } from '../scope.ts';
import { empty, type Tensor } from '../tensor.ts';
import type { Decoder } from './decoder.ts';

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

export interface LoraOptions {
  /** Rows of A. */
  rank: number;
  /** The product is multiplied by alpha / rank. @default rank */
  alpha?: number;
  /** Share of a projection's input that its adapter does not see. @default 0 */
  dropout?: number;
  /** @default all but lm_head */
  modules?: readonly LoraModule[];
  /** Of A's first values and of dropout. @default 0 */
  seed?: number;
  /** alpha / sqrt(rank) instead (rsLoRA, arXiv 2312.03732). @default false */
  useRslora?: boolean;
}

/** One adapter, and the parameter that it changes. */
export interface Adapter extends LowRankAdapter {
  /** The parameter's name without '.weight': 'model.layers.0.self_attn.q_proj'. */
  path: string;
}

/** A model's adapters. */
export interface Lora {
  options: Required<LoraOptions>;
  adapters: ReadonlyMap<string, Adapter>;
}

/** Numbers of dropouts, apart from those of first weights and of rounding. */
const FIRST_DROPOUT = 2 ** 24;

/**
 * Freezes the model and gives the chosen projections adapters: A (r,I) normal with the deviation that PEFT begins with, 1/sqrt(3·I), and
 * B (O,r) zero, so that the model computes what it did. Both have the model's dtype; with bf16 the optimizer's f32 copy takes the updates.
 */
export function addLora(model: Decoder, options: LoraOptions): Lora {
  if (model.lora) throw new Error('addLora: the model has adapters already');
  const { rank, alpha = rank, dropout = 0, seed = 0, useRslora = false } = options;
  const modules = options.modules ?? LORA_MODULES.filter((name) => name !== 'lm_head');
  requireCount('addLora', 'rank', rank);
  requireFinite('addLora', 'alpha', alpha);
  requireFinite('addLora', 'dropout', dropout, { min: 0, max: 1 - 2 ** -32 });
  for (const name of modules) {
    if (!LORA_MODULES.includes(name)) {
      throw new RangeError(`addLora: module '${name}' is none of ${LORA_MODULES.join(', ')}`);
    }
  }
  if (modules.length === 0) throw new RangeError('addLora: modules must not be empty');
  const scale = alpha / (useRslora ? Math.sqrt(rank) : rank);
  const adapters = new Map<string, Adapter>();
  model.freeze();
  for (const [path, weight] of model.projections()) {
    if (!modules.includes(path.split('.').at(-1) as LoraModule)) continue;
    const [O, I] = weight.shape as [number, number];
    const make = (shape: number[], name: string) =>
      empty(shape, { dtype: model.dtype, device: model.device, category: 'parameter' }).asParameter(
        `${path}.${name}.weight`,
        { gradientDtype: model.gradientDtype },
      );
    const op = FIRST_DROPOUT + adapters.size;
    const adapter = { path, a: make([rank, I], 'lora_A'), b: make([O, rank], 'lora_B'), scale, op };
    kernels.random_normal(adapter.a, 0, 1 / Math.sqrt(3 * I), seed, op, 0);
    kernels.fill(adapter.b, 0);
    adapters.set(path, adapter);
  }
  model.lora = { options: { rank, alpha, dropout, modules, seed, useRslora }, adapters };
  return model.lora;
}

/** Adds every adapter's product to its weight, W += scale · B·A in the compute dtype, and takes the adapters away. */
export function mergeLora(model: Decoder): void {
  const { lora } = model;
  if (!lora) throw new Error('mergeLora: the model has no adapters');
  const named = model.namedParameters();
  for (const { path, a, b, scale } of lora.adapters.values()) {
    const weight = named.get(`${path}.weight`) ?? model.head;
    tidy(() => addProduct(weight, a, b, scale));
  }
  for (const { a, b } of lora.adapters.values()) {
    a.dispose();
    b.dispose();
  }
  model.lora = null;
  model.unfreeze();
}

/** Rows of a weight that are merged at a time: little memory beside the weight. */
const MERGED_ROWS = 1024;

function addProduct(weight: Tensor, a: Tensor, b: Tensor, scale: number): void {
  const [O, I] = weight.shape as [number, number];
  const { device, dtype } = weight;
  const wide = dtype === 'float64' ? dtype : 'float32';
  for (let begin = 0; begin < O; begin += MERGED_ROWS) {
    tidy(() => {
      const end = Math.min(begin + MERGED_ROWS, O);
      const rows = weight.rows(begin, end);
      const sum = empty([end - begin, I], { dtype: wide, device, category: 'workspace' });
      const workspace = matmulWorkspace(device);
      kernels.cast(rows, sum);
      kernels.matmul(b.rows(begin, end), a, sum, workspace, false, false, scale, 1);
      kernels.cast(sum, rows);
    });
  }
}
