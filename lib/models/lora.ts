// LoRA (arXiv 2106.09685): the model is frozen, and each chosen projection gets a trainable product of two low-rank matrices.

import { Parameter } from '../autograd/parameter.ts';
import { requireCount, requireFinite, requireInteger } from '../ops/check.ts';
import type { Dtype } from '../runtime/dtype.ts';
import { kernels } from '../runtime/native.ts';
import { empty } from '../runtime/tensor.ts';
import {
  type Adapter,
  type AdapterLayout,
  adaptedModules,
  FUSED_MODULES,
  LORA_MODULES,
  type Lora,
  type LoraLayout,
  type LoraModule,
} from './adapter.ts';
import type { Decoder } from './decoder.ts';

export interface LoraOptions {
  /** Rank r: the number of A's rows. */
  rank: number;
  /** The adapter's output is multiplied by alpha / rank. @default rank */
  alpha?: number;
  /** Dropout probability of the adapters' inputs. @default 0 */
  dropout?: number;
  /** Projections that get adapters. @default all except lm_head, and except MLPs in a model with mixtures of experts */
  modules?: readonly LoraModule[];
  /** Seed of A's initial values and of dropout. @default 0 */
  seed?: number;
  /** Multiplies by alpha / sqrt(rank) instead (rsLoRA, arXiv 2312.03732). @default false */
  useRslora?: boolean;
}

/** First op number of dropouts, apart from the numbers of initial weights and of rounding. */
const FIRST_DROPOUT = 2 ** 24;

/**
 * Freezes the model and adds adapters to the chosen projections. A (r,I) is normal with PEFT's standard deviation, 1/sqrt(3·I); B (O,r)
 * is zero, so the model's output does not change. With bf16 adapters, updates go to the optimizer's f32 copy.
 * If memory runs out, the model is unchanged.
 * @param dtype of A and B. Adapters of another dtype than the model's can only be merged. @default the model's
 */
export function addLora(model: Decoder, options: LoraOptions | LoraLayout, dtype: Dtype = model.dtype): Lora {
  if (model.lora) throw new Error('addLora: the model already has adapters');
  const layout = 'adapters' in options ? options : layoutOf(model, options);
  checkLayout(layout);
  const { useRslora, seed } = layout;
  const weights = new Map(model.projections());
  const adapters = new Map<string, Adapter>();
  const made: { dispose(): void }[] = [];
  try {
    for (const { path, rank, alpha } of layout.adapters) {
      const weight = weights.get(path);
      if (!weight) throw new RangeError(`addLora: the model has no projection '${path}'`);
      const [O, I] = weight.shape as [number, number];
      const make = (shape: number[], name: string) => {
        const gradientDtype = dtype === model.dtype ? model.gradientDtype : undefined;
        const memory = empty(shape, { dtype, device: model.device, category: 'parameter' });
        const parameter = new Parameter(memory, { name: `${path}.${name}.weight`, gradientDtype });
        made.push(parameter);
        return parameter;
      };
      const op = FIRST_DROPOUT + adapters.size;
      const scale = alpha / (useRslora ? Math.sqrt(rank) : rank);
      const adapter = { path, rank, alpha, a: make([rank, I], 'lora_A'), b: make([O, rank], 'lora_B'), scale, op };
      kernels.random_normal(adapter.a, 0, 1 / Math.sqrt(3 * I), seed, op, 0);
      kernels.fill(adapter.b, 0);
      adapters.set(path, adapter);
    }
  } catch (error) {
    for (const tensor of made) tensor.dispose();
    throw error;
  }
  model.freeze();
  model.lora = { layout, adapters };
  return model.lora;
}

/** Removes the adapters and unfreezes the model's own parameters. */
export function removeLora(model: Decoder): void {
  for (const { a, b } of model.lora?.adapters.values() ?? []) {
    a.dispose();
    b.dispose();
  }
  model.lora?.close?.();
  model.lora = null;
  model.unfreeze();
}

function layoutOf(model: Decoder, options: LoraOptions): LoraLayout {
  const { rank, alpha = rank, dropout = 0, seed = 0, useRslora = false } = options;
  const known: readonly LoraModule[] = [...LORA_MODULES, ...FUSED_MODULES];
  for (const name of options.modules ?? []) {
    if (!known.includes(name)) {
      throw new RangeError(`addLora: module '${name}' is none of ${known.join(', ')}`);
    }
  }
  const modules = adaptedModules(model.config, options.modules);
  if (modules.length === 0) throw new RangeError('addLora: modules must not be empty');
  const adapters: AdapterLayout[] = [];
  for (const [path] of model.projections()) {
    if (modules.includes(path.split('.').at(-1) as LoraModule)) adapters.push({ path, rank, alpha });
  }
  return { adapters, dropout, seed, useRslora };
}

function checkLayout({ adapters, dropout, seed }: LoraLayout): void {
  requireFinite('addLora', 'dropout', dropout, { min: 0, max: 1 - 2 ** -32 });
  requireInteger('addLora', 'seed', seed);
  for (const { rank, alpha } of adapters) {
    requireCount('addLora', 'rank', rank);
    requireFinite('addLora', 'alpha', alpha);
  }
}
