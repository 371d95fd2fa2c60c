// minisequence preview
import { join } from 'node:path';
import { styleText } from 'node:util';
import type { TokenBatch } from '../data/dataset.ts';
import { formatNote } from '../data/notes.ts';
import { resolveModelFolder } from '../io/hub.ts';
import { readConfig } from '../io/weights.ts';
import { IGNORE_INDEX } from '../ops/loss_options.ts';
import { loadTokenizer, type Tokenizer } from '../text/tokenizer.ts';
import type { RunConfig } from '../train/config.ts';
import { readRunConfig } from '../train/config_file.ts';
import { openRunData } from '../train/run_data.ts';
import { withTemporaryFolder } from './temporary_folder.ts';

export interface PreviewArguments {
  config: string;
  set?: string[];
  examples: string;
  json: boolean;
}

/**
 * Prints the first sequences as they will be trained on: targets, context, and where documents begin. What is left out or not trained on
 * goes to standard error.
 */
export async function runPreview({ config: path, set = [], ...options }: PreviewArguments): Promise<void> {
  const config = await readRunConfig(path, set);
  await withTemporaryFolder((outDir) => preview({ ...config, outDir }, options));
}

async function preview(
  config: RunConfig,
  { examples, json }: Pick<PreviewArguments, 'examples' | 'json'>,
): Promise<void> {
  const folder = 'path' in config.model ? await resolveModelFolder(config.model.path) : null;
  const source = config.tokenizer ?? (folder ? join(folder, 'tokenizer.json') : 'bytes');
  const tokenizer = await loadTokenizer(source, config.data);
  const fields = 'config' in config.model ? config.model.config : await readConfig(folder!);
  const data = await openRunData(config, tokenizer, Number(fields.vocab_size ?? tokenizer.vocabSize));
  try {
    const { training, notes, numTokens } = data;
    for (const note of notes) console.error(`Warning: ${formatNote(note)}`);
    const count = Math.min(Number(examples), training.length);
    if (!json) {
      console.log(
        `${numTokens} tokens in ${training.length} sequences of ${training.T}${training.isPacked ? ', packed' : ''}`,
      );
    }
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

/** The text that is read, special tokens among it, with what is trained on in colour, or in [brackets] where there are no colours. */
function format({ inputs, targets, documentStart, T }: TokenBatch, tokenizer: Tokenizer): string {
  const colours = process.stdout.isTTY === true;
  const mark = (text: string) => (colours ? styleText('green', text) : `[${text}]`);
  let end = T;
  while (end > 0 && targets[end - 1] === IGNORE_INDEX) end -= 1;
  const ids = Int32Array.from([...inputs.subarray(0, end), ...(end > 0 ? [targets[end - 1]!] : [])]);
  const startsDocument = (i: number) => i < end && i > 0 && documentStart?.[i] === i;
  const isTarget = (i: number) => i > 0 && !startsDocument(i) && targets[i - 1] !== IGNORE_INDEX;
  let shown = '';
  for (let begin = 0; begin < ids.length; ) {
    let next = begin + 1;
    while (next < ids.length && !startsDocument(next) && isTarget(next) === isTarget(begin)) next += 1;
    const text = textOf(ids, begin, next, tokenizer);
    shown += `${startsDocument(begin) ? '\n---\n' : ''}${isTarget(begin) ? mark(text) : text}`;
    begin = next;
  }
  return shown;
}

/** The text of ids [begin, end), decoded after the id before them: some tokenizers drop the space at the start of a text. */
function textOf(ids: Int32Array, begin: number, end: number, tokenizer: Tokenizer): string {
  const before = tokenizer.decode(ids.subarray(Math.max(0, begin - 1), begin), { special: true });
  const whole = tokenizer.decode(ids.subarray(Math.max(0, begin - 1), end), { special: true });
  return whole.startsWith(before)
    ? whole.slice(before.length)
    : tokenizer.decode(ids.subarray(begin, end), { special: true });
}
