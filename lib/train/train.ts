// Training by a configuration: data, model and run are put together here.
import { join } from 'node:path';
import { formatNote } from '../data/notes.ts';
import { type DeviceName, openDevice } from '../device.ts';
import { loadAdapter } from '../io/adapters.ts';
import { resolveModelFolder } from '../io/hub.ts';
import { loadModel } from '../io/weights.ts';
import { decoderConfig } from '../models/config.ts';
import { Decoder } from '../models/decoder.ts';
import { addLora } from '../models/lora.ts';
import { loadTokenizer, type Tokenizer } from '../text/tokenizer.ts';
import { Checkpoints } from './checkpoint.ts';
import type { RunConfig } from './config.ts';
import type { TrainOptions, TrainResult } from './events.ts';
import { Run } from './run.ts';
import { openRunData } from './run_data.ts';

/**
 * Trains as the configuration says. The run's folder gets config.yaml, metrics.jsonl, tokenised data, checkpoints and, at the end, the model
 * in HuggingFace's layout. A run that was stopped anywhere and is continued has the losses of an uninterrupted one, bit for bit on the
 * CPU.
 */
export async function train(config: RunConfig, options: TrainOptions = {}): Promise<TrainResult> {
  const { outDir } = config;
  using device = openDevice(config.device as DeviceName, {
    threads: config.threads,
    memoryLimit: config.memoryLimit,
    attention: config.attention,
    products: config.products,
    tuneProducts: config.tuneProducts,
    deterministic: config.deterministic,
  });
  const checkpoints = new Checkpoints(outDir, config.checkpoint.keepLast);
  const state = options.resume ? await checkpoints.readState(config) : null;
  if (!options.resume && (await checkpoints.steps()).length > 0) {
    throw new Error(`${outDir}: holds checkpoints of an earlier run; continue it (--resume), or choose another outDir`);
  }
  if (state && JSON.stringify(state.target) !== JSON.stringify(device.target)) {
    const [then, now] = [state.target, device.target].map((target) => JSON.stringify(target));
    throw new Error(`${outDir}: the run was computed on ${then} and cannot be continued exactly on ${now}`);
  }
  const folder = 'path' in config.model ? await resolveModelFolder(config.model.path) : null;
  const source = config.tokenizer ?? (folder ? join(folder, 'tokenizer.json') : 'bytes');
  const tokenizer = await loadTokenizer(source, config.data);
  using model = await makeModel(config, device, tokenizer, folder);
  await giveAdapters(model, config);
  const data = await openRunData(config, tokenizer, model.config.vocabSize);
  try {
    for (const note of data.notes) options.onWarning?.({ code: 'documents', message: formatNote(note) });
    const run = new Run(config, options, { model, tokenizer, data, checkpoints, state });
    return await run.run();
  } finally {
    await data.close();
  }
}

async function giveAdapters(model: Decoder, { lora, seed, model: from }: RunConfig): Promise<void> {
  const ignoreFields = 'path' in from ? from.ignoreFields : [];
  if (lora?.from !== undefined) await loadAdapter(model, lora.from, { ignoreFields });
  else if (lora) addLora(model, { ...lora, rank: lora.rank!, seed });
}

async function makeModel(
  config: RunConfig,
  device: ReturnType<typeof openDevice>,
  tokenizer: Tokenizer,
  folder: string | null,
): Promise<Decoder> {
  const { dtype, gradientDtype } = config;
  const model =
    'config' in config.model
      ? new Decoder(decoderConfig({ vocab_size: tokenizer.vocabSize, ...config.model.config }), {
          device,
          dtype,
          gradientDtype,
        }).initialize(config.seed)
      : await loadModel(folder!, { device, dtype, gradientDtype, ignoreFields: config.model.ignoreFields });
  const V = model.config.vocabSize;
  if (tokenizer.vocabSize > V) {
    model.dispose();
    throw new RangeError(`train: the tokenizer has ${tokenizer.vocabSize} ids, the model's vocabulary ${V}`);
  }
  return model;
}
