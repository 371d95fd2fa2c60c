// Conversations to text, as the model's own template says.
import { join } from 'node:path';
import { readIfThere } from '../io/read.ts';
import { JinjaTemplate } from './jinja/template.ts';
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
  readonly #template: JinjaTemplate;
  readonly #variables: Record<string, unknown>;

  /** @param name the template's file, for messages */
  constructor(template: string, config: TokenizerConfig = {}, name = 'chat template') {
    this.#template = new JinjaTemplate(template, name);
    this.#variables = {
      bos_token: contentOf(config.bos_token),
      eos_token: contentOf(config.eos_token),
    };
  }

  /** The whole conversation; with `addGenerationPrompt` up to where the assistant's next turn begins. */
  async render(messages: readonly Message[], addGenerationPrompt = false): Promise<string> {
    const variables = { ...this.#variables, messages, add_generation_prompt: addGenerationPrompt };
    return (await this.#template.render(variables)).text;
  }

  /**
   * The conversation cut at its assistant turns, which are trained on with the token that ends them: the very text that generation begins
   * with, and what should follow it. Throws where the template rewrites earlier turns when later ones come.
   * @param firstTarget the first message that may be trained on
   */
  async segments(messages: readonly Message[], firstTarget = 0): Promise<Segment[]> {
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
    for (const [i, { role }] of messages.entries()) {
      if (role !== 'assistant' || i < firstTarget) continue;
      upTo(await this.render(messages.slice(0, i), true), false);
      upTo(await this.render(messages.slice(0, i + 1)), true);
    }
    upTo(await this.render(messages), false);
    return segments;
  }
}

/** The chat template beside a tokenizer.json; null where there is none. */
export async function readChatTemplate(folder: string, config: TokenizerConfig): Promise<ChatTemplate | null> {
  const { chat_template: stored } = config;
  const path = join(folder, 'chat_template.jinja');
  const text = await readIfThere(path);
  if (text !== null) return new ChatTemplate(text, config, path);
  const place = `${join(folder, 'tokenizer_config.json')}: chat_template`;
  if (typeof stored === 'string') return new ChatTemplate(stored, config, place);
  const named = stored?.find(({ name }) => name === 'default') ?? stored?.[0];
  return named ? new ChatTemplate(named.template, config, `${place} '${named.name}'`) : null;
}

export function contentOf(token: string | { content: string } | null | undefined): string {
  return typeof token === 'string' ? token : (token?.content ?? '');
}
