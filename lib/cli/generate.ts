// minisequence generate

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { type GenerateOptions, generate, type Prompt } from '../generate/generate.ts';
import { loadAdapter } from '../io/adapters.ts';
import { resolveModelFolder } from '../io/hub.ts';
import { CHAT_TEMPLATE_FILE, TOOL_TEMPLATE_FILE } from '../io/model_folder.ts';
import { loadModel } from '../io/weights.ts';
import type { Quantization } from '../models/decoder_config.ts';
import type { DeviceName } from '../runtime/device.ts';
import { parseJson } from '../text/json.ts';
import { loadTokenizer } from '../text/tokenizer.ts';
import { Output } from './output.ts';

export interface GenerateArguments {
  model: string;
  prompt: string;
  adapter?: string;
  tokenizer?: string;
  device: string;
  dtype?: 'float32' | 'bfloat16';
  quantization?: Quantization;
  ignoreFields?: string[];
  maxTokens?: number;
  temperature?: number;
  topK?: number;
  topP?: number;
  minP?: number;
  repetitionPenalty?: number;
  seed?: number;
  stop?: string[];
  chat: boolean;
  chatTemplate?: string;
  templateVariables?: string;
  templateDate?: string;
  tools?: string;
  json: boolean;
}

/** The templates that are not the model's own: one that is asked for, or those that an adapter was trained with. */
function templatesOf({ chatTemplate, adapter }: GenerateArguments): { chatTemplate?: string; toolTemplate?: string } {
  if (chatTemplate !== undefined || adapter === undefined) return { chatTemplate };
  const [template, toolTemplate] = [CHAT_TEMPLATE_FILE, TOOL_TEMPLATE_FILE].map((name) => join(adapter, name));
  return existsSync(template!) ? { chatTemplate: template, toolTemplate } : {};
}

function parsed<T>(option: string, text: string | undefined): T | undefined {
  try {
    return text === undefined ? undefined : (parseJson(text) as T);
  } catch (error) {
    throw new Error(`${option}: is not JSON: ${(error as Error).message}`, { cause: error });
  }
}

/** Streams the text; Ctrl-C ends it, and so does a closed pipe. */
export async function runGenerate(options: GenerateArguments): Promise<void> {
  const folder = await resolveModelFolder(options.model);
  const tokenizer = await loadTokenizer(options.tokenizer ?? join(folder, 'tokenizer.json'), {
    ...templatesOf(options),
    templateVariables: parsed('--template-variables', options.templateVariables),
    templateDate: options.templateDate,
  });
  const { dtype, quantization, ignoreFields } = options;
  using model = await loadModel(folder, { device: options.device as DeviceName, dtype, quantization, ignoreFields });
  if (options.adapter) await loadAdapter(model, options.adapter, { ignoreFields });
  const content = options.prompt === '-' ? await text(process.stdin) : options.prompt;
  const tools = parsed<unknown[]>('--tools', options.tools);
  const prompt: Prompt = options.chat ? { messages: [{ role: 'user', content }], tools } : content;
  const stopped = new AbortController();
  const onInterrupt = () => stopped.abort();
  process.once('SIGINT', onInterrupt);
  const output = new Output(process.stdout, onInterrupt);
  const { maxTokens, temperature, topK, topP, minP, repetitionPenalty, seed, stop } = options;
  const sampling = { temperature, topK, topP, minP, repetitionPenalty };
  const settings: GenerateOptions = { ...sampling, maxTokens, seed, stop, signal: stopped.signal };
  try {
    for await (const token of generate(model, tokenizer, prompt, settings)) {
      await output.write(options.json ? `${JSON.stringify(token)}\n` : token.text);
    }
    if (!options.json) await output.write('\n');
  } finally {
    process.off('SIGINT', onInterrupt);
  }
}
