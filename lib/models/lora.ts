// LoRA: the model stays as it is, and each chosen projection gets a trained product of two thin matrices (arXiv 2106.09685).

import { Parameter } from '../autograd/parameter.ts';
import { requireCount, requireFinite, requireInteger } from '../ops/check.ts';
import type { Dtype } from '../runtime/dtype.ts';
import { kernels } from '../runtime/native.ts';
import { empty } from '../runtime/tensor.ts';
import {
  type Adapter,
  type AdapterLayout,
  LORA_MODULES,
  type Lora,
  type LoraLayout,
  type LoraModule,
} from './adapter.ts';
import type { Decoder } from './decoder.ts';

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

/** Numbers of dropouts, apart from those of first weights and of rounding. */
const FIRST_DROPOUT = 2 ** 24;

/**
 * Freezes the model and gives the chosen projections adapters: A (r,I) normal with the deviation that PEFT begins with, 1/sqrt(3·I), and
 * B (O,r) zero, so that the model computes what it did. With bf16 the optimizer's f32 copy takes the updates.
 * Where memory runs out the model is as it was.
 * @param dtype of A and B; in another one than the model's they can be merged, and nothing else. @default the model's
 */
export function addLora(model: Decoder, options: LoraOptions | LoraLayout, dtype: Dtype = model.dtype): Lora {
  if (model.lora) throw new Error('addLora: the model has adapters already');
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

/** Takes the adapters away; the model's own parameters have gradients again. */
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
  const modules = options.modules ?? LORA_MODULES.filter((name) => name !== 'lm_head');
  for (const name of modules) {
    if (!LORA_MODULES.includes(name)) {
      throw new RangeError(`addLora: module '${name}' is none of ${LORA_MODULES.join(', ')}`);
    }
  }
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
