// All supported model families; see docs/adding_a_family.md.

import { ernie45 } from './ernie4_5.ts';
import { exaone4 } from './exaone4.ts';
import type { Family } from './family.ts';
import { gemma2 } from './gemma2.ts';
import { gemma3, gemma3Images } from './gemma3.ts';
import { gemma4, gemma4Images } from './gemma4.ts';
import { glm4 } from './glm4.ts';
import { granite } from './granite.ts';
import { hunyuan } from './hunyuan.ts';
import { llama } from './llama.ts';
import { ministral3 } from './ministral3.ts';
import { mistral } from './mistral.ts';
import { mistral3 } from './mistral3.ts';
import { mixtral } from './mixtral.ts';
import { olmo2 } from './olmo2.ts';
import { olmo3 } from './olmo3.ts';
import { olmoe } from './olmoe.ts';
import { phi3 } from './phi3.ts';
import { qwen2 } from './qwen2.ts';
import { qwen3 } from './qwen3.ts';
import { qwen3Moe } from './qwen3_moe.ts';
import { seedOss } from './seed_oss.ts';
import { smollm3 } from './smollm3.ts';

const all: readonly Family[] = [
  llama,
  mistral,
  qwen2,
  qwen3,
  gemma2,
  gemma3,
  smollm3,
  granite,
  olmo2,
  exaone4,
  seedOss,
  ernie45,
  hunyuan,
  olmo3,
  phi3,
  glm4,
  ministral3,
  mixtral,
  qwen3Moe,
  olmoe,
  gemma4,
  mistral3,
  gemma3Images,
  gemma4Images,
];

/** Families by model_type. */
export const families: ReadonlyMap<string, Family> = new Map(all.map((family) => [family.type, family]));
