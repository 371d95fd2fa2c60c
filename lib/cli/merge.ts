// minisequence merge
import { existsSync, realpathSync } from 'node:fs';
import { join } from 'node:path';
import { loadAdapter } from '../io/adapters.ts';
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
import { loadModel } from '../io/weights.ts';
import { mergeLora } from '../models/merge_lora.ts';
import { computeDtype } from '../runtime/dtype.ts';

export interface MergeArguments {
  model: string;
  adapter: string;
  out: string;
  ignoreFields?: string[];
}

/** Adds an adapter to the model that it was trained on, and writes an ordinary model. */
export async function runMerge({ model: path, adapter, out, ignoreFields }: MergeArguments): Promise<void> {
  const folder = await resolveModelFolder(path);
  if ([folder, adapter].some((input) => isSameFolder(input, out)) || existsSync(join(out, 'adapter_config.json'))) {
    throw new Error(`--out ${out}: holds what is merged, or an adapter; choose another folder`);
  }
  using model = await loadModel(folder, { device: 'cpu', ignoreFields });
  const dtype = computeDtype(model.dtype);
  const { adapters } = await loadAdapter(model, adapter, { dtype, ignoreFields });
  const { size } = adapters;
  mergeLora(model);
  const isUsedAgain = [WEIGHTS_FILE, INDEX_FILE].some((name) => existsSync(join(out, name)));
  await saveModel(model, out);
  const template = await readIfThere(join(adapter, CHAT_TEMPLATE_FILE));
  if (template !== null) await writeChatTemplate(out, template, await readIfThere(join(adapter, TOOL_TEMPLATE_FILE)));
  if (isUsedAgain)
    await removeUncarried(folder, out, template === null ? [] : [CHAT_TEMPLATE_FILE, TOOL_TEMPLATE_FILE]);
  console.log(`merged ${size} ${size === 1 ? 'adapter' : 'adapters'}; saved ${out}`);
}

function isSameFolder(a: string, b: string): boolean {
  return existsSync(a) && existsSync(b) && realpathSync(a) === realpathSync(b);
}
