// Texts that the model writes while it is trained.
import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { generateText } from '../generate/generate.ts';
import type { Decoder } from '../models/decoder.ts';
import { OutOfMemoryError } from '../runtime/memory/errors.ts';
import type { Tokenizer } from '../text/tokenizer.ts';
import type { RunConfig } from './config.ts';
import { StepFile } from './step_file.ts';

export interface Sample {
  step: number;
  prompt: string;
  text: string;
}

const FILE = 'samples.jsonl';

/** The file of a run's samples, to go on after a step. */
export function openSamples(outDir: string, step: number): Promise<StepFile<Sample>> {
  return StepFile.open<Sample>(join(outDir, FILE), step);
}

/** Removes what was written after a step, or by another run (step 0). */
export async function cutSamples(outDir: string, step: number): Promise<void> {
  const path = join(outDir, FILE);
  if (!existsSync(path)) return;
  if (step === 0) await rm(path);
  else await (await openSamples(outDir, step)).close();
}

/** One for each prompt. Where keys and values do not fit beside the training, the text says so and the run goes on. */
export async function writeSamples(
  model: Decoder,
  tokenizer: Tokenizer,
  { prompts, maxTokens, temperature }: RunConfig['samples'],
  { step, seed }: { step: number; seed: number },
): Promise<Sample[]> {
  const samples: Sample[] = [];
  for (const prompt of prompts) {
    try {
      const text = await generateText(model, tokenizer, prompt, { maxTokens, temperature, seed });
      samples.push({ step, prompt, text });
    } catch (error) {
      if (!(error instanceof OutOfMemoryError)) throw error;
      samples.push({ step, prompt, text: `[${error.message.split('\n')[0]}]` });
    }
  }
  return samples;
}
