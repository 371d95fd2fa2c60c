// minisequence merge
import { existsSync, realpathSync } from 'node:fs';
import { join } from 'node:path';
import { loadAdapter, quantizedBaseOf } from '../io/adapters.ts';
import { resolveModelFolder } from '../io/hub.ts';
import {
  CHAT_TEMPLATE_FILE,
  INDEX_FILE,
  removeUncarried,
  TOOL_TEMPLATE_FILE,
  WEIGHTS_FILE,
  writeChatTemplate,
} from '../io/model_folder.ts';
import { readIfThere } from '../io/read.ts';
import { saveModel } from '../io/save_model.ts';
import { loadModel, readConfig } from '../io/weights.ts';
import { decoderConfig } from '../models/config.ts';
import type { Quantization } from '../models/decoder_config.ts';
import { mergeLora } from '../models/merge_lora.ts';
import { computeDtype } from '../runtime/dtype.ts';

export interface MergeArguments {
  model: string;
  adapter: string;
  out: string;
  /** Of the projections that the adapter was trained on. @default what its file says, else as the model is stored */
  quantization?: Quantization | 'none';
  ignoreFields?: string[];
}

/**
 * Adds an adapter to the model that it was trained on, and writes an ordinary model: in bf16 if the projections were in 4 bits, since they
 * come back to what the adapter was trained on.
 */
export async function runMerge({
  model: path,
  adapter,
  out,
  quantization,
  ignoreFields,
}: MergeArguments): Promise<void> {
  const folder = await resolveModelFolder(path);
  if ([folder, adapter].some((input) => isSameFolder(input, out)) || existsSync(join(out, 'adapter_config.json'))) {
    throw new Error(`--out ${out}: holds what is merged, or an adapter; choose another folder`);
  }
  const stored = decoderConfig(await readConfig(folder), { ignoreFields }).quantization;
  if (stored && quantization === 'none') {
    throw new RangeError(
      `--quantization none: ${folder} is stored in 4 bits (${stored}); give the model that it was made from`,
    );
  }
  const trainedOn = await quantizedBaseOf(adapter);
  const method = quantization === 'none' ? null : (quantization ?? trainedOn?.quantization ?? stored);
  const ofBase = method ? { quantization: stored ? null : method, dtype: trainedOn?.dtype ?? 'bfloat16' } : {};
  using model = await loadModel(folder, { device: 'cpu', ignoreFields, ...ofBase });
  const dtype = computeDtype(model.dtype);
  const { adapters } = await loadAdapter(model, adapter, { dtype, ignoreFields });
  const { size } = adapters;
  mergeLora(model);
  const isUsedAgain = [WEIGHTS_FILE, INDEX_FILE].some((name) => existsSync(join(out, name)));
  await saveModel(model, out, method ? { dtype: 'bfloat16' } : {});
  const template = await readIfThere(join(adapter, CHAT_TEMPLATE_FILE));
  if (template !== null) await writeChatTemplate(out, template, await readIfThere(join(adapter, TOOL_TEMPLATE_FILE)));
  if (isUsedAgain)
    await removeUncarried(folder, out, template === null ? [] : [CHAT_TEMPLATE_FILE, TOOL_TEMPLATE_FILE]);
  const into = method ? ` into what projections in 4 bits (${method}) stand for` : '';
  console.log(`merged ${size} ${size === 1 ? 'adapter' : 'adapters'}${into}; saved ${out}`);
}

function isSameFolder(a: string, b: string): boolean {
  return existsSync(a) && existsSync(b) && realpathSync(a) === realpathSync(b);
}
