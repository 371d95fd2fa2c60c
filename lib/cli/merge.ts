// minisequence merge
import { loadAdapter } from '../io/adapters.ts';
import { loadModel, saveModel } from '../io/weights.ts';
import { mergeLora } from '../models/lora.ts';

export interface MergeArguments {
  model: string;
  adapter: string;
  out: string;
}

/** Adds an adapter to the model that it was trained on, and writes an ordinary model. */
export async function runMerge({ model: path, adapter, out }: MergeArguments): Promise<void> {
  using model = await loadModel(path, { device: 'cpu' });
  const { adapters } = await loadAdapter(model, adapter);
  const { size } = adapters;
  mergeLora(model);
  await saveModel(model, out);
  console.log(`merged ${size} adapters; saved ${out}`);
}
