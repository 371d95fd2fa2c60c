// Folders of adapters, written as PEFT writes them, and what they make of weights, in f64.
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { toFile } from '../../lib/io/elements.ts';
import { SafetensorsFile, writeSafetensors } from '../../lib/io/safetensors.ts';
import type { SafetensorsDtype } from '../../lib/runtime/safetensors_dtype.ts';
import { normals } from './random.ts';
import { newFolder } from './runs.ts';

export interface WrittenTensor {
  shape: number[];
  values: Float32Array;
  dtype?: SafetensorsDtype;
}

/** What PEFT 0.19 writes for `r` 4, `lora_alpha` 8 on q_proj, every field of it. */
export const peftConfig = {
  alora_invocation_tokens: null,
  alpha_pattern: {},
  arrow_config: null,
  auto_mapping: null,
  base_model_name_or_path: 'somebody/some-model',
  bias: 'none',
  corda_config: null,
  ensure_weight_tying: false,
  eva_config: null,
  exclude_modules: null,
  fan_in_fan_out: false,
  inference_mode: true,
  init_lora_weights: true,
  layer_replication: null,
  layers_pattern: null,
  layers_to_transform: null,
  loftq_config: {},
  lora_alpha: 8,
  lora_bias: false,
  lora_dropout: 0.05,
  lora_ga_config: null,
  megatron_config: null,
  megatron_core: 'megatron.core',
  modules_to_save: null,
  peft_type: 'LORA',
  peft_version: '0.19.1',
  qalora_group_size: 16,
  r: 4,
  rank_pattern: {},
  revision: null,
  target_modules: ['q_proj'] as unknown,
  target_parameters: null,
  task_type: 'CAUSAL_LM',
  trainable_token_indices: null,
  use_bdlora: null,
  use_dora: false,
  use_qalora: false,
  use_rslora: false,
};

/** Projections of `tinyLlama`: (O,I). */
const SHAPES: Record<string, [number, number]> = {
  q_proj: [32, 32],
  k_proj: [16, 32],
  v_proj: [16, 32],
  o_proj: [32, 32],
  gate_proj: [88, 32],
  up_proj: [88, 32],
  down_proj: [32, 88],
  lm_head: [256, 32],
};

/** 'model.layers.0.self_attn.q_proj' of layer 0 and 'q_proj'. */
export function pathOf(layer: number, module: string): string {
  if (module === 'lm_head') return module;
  const part = ['gate_proj', 'up_proj', 'down_proj'].includes(module) ? 'mlp' : 'self_attn';
  return `model.layers.${layer}.${part}.${module}`;
}

/** A and B of these modules of `tinyLlama`, by PEFT's names. */
export function adapterTensors(paths: readonly string[], rankOf: (path: string) => number): Map<string, WrittenTensor> {
  const tensors = new Map<string, WrittenTensor>();
  for (const [i, path] of paths.entries()) {
    const [O, I] = SHAPES[path.split('.').at(-1)!]!;
    const r = rankOf(path);
    const make = (shape: [number, number], seed: number) => ({
      shape,
      values: Float32Array.from(normals(shape[0] * shape[1], seed, 0.2)),
    });
    tensors.set(`base_model.model.${path}.lora_A.weight`, make([r, I], 100 + 2 * i));
    tensors.set(`base_model.model.${path}.lora_B.weight`, make([O, r], 101 + 2 * i));
  }
  return tensors;
}

export async function writeAdapter(
  config: object,
  tensors: ReadonlyMap<string, WrittenTensor>,
  folder = newFolder(),
): Promise<string> {
  await mkdir(folder, { recursive: true });
  await writeFile(join(folder, 'adapter_config.json'), JSON.stringify(config));
  await writeSafetensors(
    join(folder, 'adapter_model.safetensors'),
    [...tensors].map(([name, { shape, values, dtype = 'F32' }]) => ({
      name,
      dtype,
      shape,
      data: () => toFile(values, 'float32', dtype),
    })),
  );
  return folder;
}

/** W + scale · B·A in f64, from f32 elements. */
export function merged(weight: Float32Array, a: WrittenTensor, b: WrittenTensor, scale: number): Float64Array {
  const [r, I] = a.shape as [number, number];
  return Float64Array.from(weight, (value, i) => {
    let product = 0;
    for (let k = 0; k < r; k++) product += b.values[Math.floor(i / I) * r + k]! * a.values[k * I + (i % I)]!;
    return value + scale * product;
  });
}

/** The bytes of every tensor of a file. */
export async function bytesByName(path: string): Promise<Map<string, Uint8Array>> {
  const file = await SafetensorsFile.open(path);
  try {
    const bytes = new Map<string, Uint8Array>();
    for (const name of file.entries.keys()) bytes.set(name, await file.read(name));
    return bytes;
  } finally {
    await file.close();
  }
}
