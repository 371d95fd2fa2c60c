// minisequence preview
import { rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { styleText } from 'node:util';
import { IGNORED, type TokenBatch } from '../data/dataset.ts';
import { resolveModelFolder } from '../io/hub.ts';
import { readConfig } from '../io/weights.ts';
import { loadTokenizer, type Tokenizer } from '../text/tokenizer.ts';
import { readRunConfig } from '../train/config.ts';
import { openRunData } from '../train/run_data.ts';

export interface PreviewArguments {
  config: string;
  set?: string[];
  examples: string;
  json: boolean;
}

/** Prints the first sequences as they will be trained on: what is a target, what is only read, where documents begin. */
export async function runPreview({ config: path, set = [], examples, json }: PreviewArguments): Promise<void> {
  const outDir = join(tmpdir(), `minisequence-preview-${process.pid}`);
  const config = { ...(await readRunConfig(path, set)), outDir };
  const folder = 'path' in config.model ? await resolveModelFolder(config.model.path) : null;
  const { chatTemplate } = config.data;
  const source = config.tokenizer ?? (folder ? join(folder, 'tokenizer.json') : 'bytes');
  const tokenizer = await loadTokenizer(source, { chatTemplate });
  const fields = 'config' in config.model ? config.model.config : await readConfig(folder!);
  const data = await openRunData(config, tokenizer, Number(fields.vocab_size ?? tokenizer.vocabSize));
  try {
    const { training } = data;
    const count = Math.min(Number(examples), training.length);
    if (!json)
      console.log(
        `${data.numTokens} tokens in ${training.length} sequences of ${training.T}${training.isPacked ? ', packed' : ''}`,
      );
    for (let i = 0; i < count; i++) {
      const batch = await training.batch([i]);
      console.log(
        json
          ? JSON.stringify(plain(batch))
          : `\n${i + 1}. ${batch.numTargets} of ${batch.T} are targets\n${format(batch, tokenizer)}`,
      );
    }
  } finally {
    await data.close();
    await rm(outDir, { recursive: true, force: true });
  }
}

function plain({ inputs, targets, documentStart, numTargets }: TokenBatch): object {
  return {
    inputs: [...inputs],
    targets: [...targets],
    documentStart: documentStart && [...documentStart],
    numTargets,
  };
}

/** The text that is read, with what is trained on in colour, or in [brackets] where there are no colours. */
function format({ inputs, targets, documentStart, T }: TokenBatch, tokenizer: Tokenizer): string {
  const colours = process.stdout.isTTY === true;
  const mark = (text: string) => (colours ? styleText('green', text) : `[${text}]`);
  let end = T;
  while (end > 0 && targets[end - 1] === IGNORED) end -= 1;
  let shown = '';
  for (let begin = 0; begin < end; ) {
    const isDocument = begin > 0 && documentStart?.[begin] === begin;
    const isTarget = begin > 0 && !isDocument && targets[begin - 1] !== IGNORED;
    let next = begin + 1;
    while (next < end && documentStart?.[next] !== next && (targets[next - 1] !== IGNORED) === isTarget) next += 1;
    const text = tokenizer.decode(inputs.subarray(begin, next));
    shown += `${isDocument ? '\n---\n' : ''}${isTarget ? mark(text) : text}`;
    begin = next;
  }
  const last = targets[end - 1];
  return last === undefined || last === IGNORED ? shown : shown + mark(tokenizer.decode([last]));
}
