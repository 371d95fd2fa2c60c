// Conversations to text, as the model's own template says.
import { join } from 'node:path';
import { Template } from '@huggingface/jinja';
import { readIfThere } from '../io/read.ts';
import type { Message } from './records/record.ts';

/** Text that is trained on or not. */
export interface Segment {
  text: string;
  isTarget: boolean;
}

/** What tokenizer_config.json says beside tokenizer.json. */
export interface TokenizerConfig {
  chat_template?: string | { name: string; template: string }[];
  bos_token?: string | { content: string } | null;
  eos_token?: string | { content: string } | null;
}

export class ChatTemplate {
  readonly #template: Template;
  readonly #variables: Record<string, unknown>;

  constructor(template: string, config: TokenizerConfig = {}) {
    this.#template = new Template(template);
    this.#variables = {
      bos_token: contentOf(config.bos_token),
      eos_token: contentOf(config.eos_token),
    };
  }

  /** The whole conversation; with `addGenerationPrompt` up to where the assistant's next turn begins. */
  render(messages: readonly Message[], addGenerationPrompt = false): string {
    try {
      return this.#template.render({ ...this.#variables, messages, add_generation_prompt: addGenerationPrompt });
    } catch (error) {
      throw new Error(`chat template: ${(error as Error).message}`, { cause: error });
    }
  }

  /**
   * The conversation cut at its assistant turns, which are trained on with the token that ends them: the very text that generation begins
   * with, and what should follow it. Throws where the template rewrites earlier turns when later ones come.
   * @param firstTarget the first message that may be trained on
   */
  segments(messages: readonly Message[], firstTarget = 0): Segment[] {
    const segments: Segment[] = [];
    let done = '';
    const upTo = (text: string, isTarget: boolean) => {
      if (!text.startsWith(done)) {
        throw new Error(
          'chat template: renders earlier turns differently when later ones follow; set data.trainOnPrompts, or use { prompt, completion }',
        );
      }
      if (text.length > done.length) segments.push({ text: text.slice(done.length), isTarget });
      done = text;
    };
    messages.forEach(({ role }, i) => {
      if (role !== 'assistant' || i < firstTarget) return;
      upTo(this.render(messages.slice(0, i), true), false);
      upTo(this.render(messages.slice(0, i + 1)), true);
    });
    upTo(this.render(messages), false);
    return segments;
  }
}

/** The chat template beside a tokenizer.json; null where there is none. */
export async function readChatTemplate(folder: string, config: TokenizerConfig): Promise<ChatTemplate | null> {
  const { chat_template: stored } = config;
  const text = await readIfThere(join(folder, 'chat_template.jinja'));
  if (text !== null) return new ChatTemplate(text, config);
  if (typeof stored === 'string') return new ChatTemplate(stored, config);
  const named = stored?.find(({ name }) => name === 'default') ?? stored?.[0];
  return named ? new ChatTemplate(named.template, config) : null;
}

export function contentOf(token: string | { content: string } | null | undefined): string {
  return typeof token === 'string' ? token : (token?.content ?? '');
}
