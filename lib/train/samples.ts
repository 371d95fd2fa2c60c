// Texts that the model writes while it is trained.
import { generateText } from '../generate/generate.ts';
import type { Decoder } from '../models/decoder.ts';
import { OutOfMemoryError } from '../runtime/memory/errors.ts';
import type { Tokenizer } from '../text/tokenizer.ts';
import type { RunConfig } from './config.ts';

export interface Sample {
  step: number;
  prompt: string;
  text: string;
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
