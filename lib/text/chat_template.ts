// Converts conversations to text with the model's template, as transformers' apply_chat_template does.
import { join } from 'node:path';
import { CHAT_TEMPLATE_FILE, TOOL_TEMPLATE_FILE } from '../io/model_folder.ts';
import { readIfThere } from '../io/read.ts';
import { JinjaTemplate, type Rendered } from './jinja/template.ts';
import { checkMessages } from './messages.ts';
import { hasTools } from './probe_tools.ts';
import type { Conversation, Message } from './records/record.ts';
import { literal, savedTemplate } from './saved_template.ts';
import { findForms, inForm, type TemplateForms } from './template_forms.ts';

type StoredToken = string | { content: string } | null;

/** The fields of tokenizer_config.json that are used here. */
export interface TokenizerConfig {
  chat_template?: string | { name: string; template: string }[];
  bos_token?: StoredToken;
  eos_token?: StoredToken;
  unk_token?: StoredToken;
  sep_token?: StoredToken;
  pad_token?: StoredToken;
  cls_token?: StoredToken;
  mask_token?: StoredToken;
  additional_special_tokens?: StoredToken[];
}

/** A run's settings for its template. */
export interface TemplateSettings {
  /** Variables of the template, such as enable_thinking; a record's own override them. */
  variables?: Record<string, unknown>;
  /** The time that strftime_now() returns. @default the current time, read once */
  date?: Date;
}

const TOKENS = ['bos_token', 'eos_token', 'unk_token', 'sep_token', 'pad_token', 'cls_token', 'mask_token'] as const;

export class ChatTemplate {
  /** Whether the template, or the one for tools, contains this word, the name of a field that it may read. */
  readonly mentions: (name: string) => boolean;
  /** The template to save: with its variables as defaults, and with the template for tools; see `savedTemplate`. */
  readonly saved: () => string;
  readonly #template: JinjaTemplate;
  /** For conversations with tools, if the model has a separate template for them. */
  readonly #toolTemplate: JinjaTemplate | null;
  readonly #variables: Record<string, unknown>;
  readonly #date: Date;
  /** Forms of messages, for conversations with tools (true) and without (false). */
  readonly #forms = new Map<boolean, Promise<TemplateForms>>();

  /** @param name the file that the template is from, for messages */
  constructor(
    template: string,
    config: TokenizerConfig = {},
    {
      variables = {},
      date = new Date(),
      name = 'chat template',
      toolTemplate = null,
    }: TemplateSettings & { name?: string; toolTemplate?: string | null } = {},
  ) {
    const texts = [template, toolTemplate ?? ''];
    this.mentions = (name) => texts.some((text) => text.includes(name));
    this.saved = () => savedTemplate(template, toolTemplate, variables);
    this.#template = new JinjaTemplate(template, name);
    this.#toolTemplate = toolTemplate === null ? null : new JinjaTemplate(toolTemplate, `${name} (tool_use)`);
    const tokens: Record<string, unknown> = {};
    for (const token of TOKENS) if (config[token]) tokens[token] = contentOf(config[token]);
    const { additional_special_tokens: additional } = config;
    if (additional) tokens.additional_special_tokens = additional.map(contentOf);
    this.#variables = { ...tokens, ...variables };
    this.#date = date;
  }

  /**
   * Converts a conversation to the forms that the template reads: content as text or as parts, tool arguments as objects or as JSON. If
   * there is no text to train on or to answer, throws an Error that names the message and the field.
   */
  async prepare(conversation: Conversation): Promise<Conversation> {
    checkMessages(conversation.messages);
    const tools = hasTools(conversation);
    if (!this.#forms.has(tools)) this.#forms.set(tools, findForms(this, tools));
    const forms = (await this.#forms.get(tools))!;
    return { ...conversation, messages: conversation.messages.map((message) => inForm(message, forms)) };
  }

  /**
   * Renders a prepared conversation; with `addGenerationPrompt` including the start of the assistant's next turn. Throws an Error if the
   * template refuses the conversation.
   */
  async rendered(
    { messages, tools, documents, variables }: Conversation,
    addGenerationPrompt = false,
  ): Promise<Rendered> {
    const template = tools && this.#toolTemplate ? this.#toolTemplate : this.#template;
    const given = {
      tools: null,
      documents: null,
      ...this.#variables,
      ...variables,
      ...(tools && { tools }),
      ...(documents && { documents }),
      messages: messages.map(({ isTrained: _, ...message }) => message),
      add_generation_prompt: addGenerationPrompt,
    };
    return await template.render(given, this.#date);
  }

  /** Renders messages; with `addGenerationPrompt` including the start of the assistant's next turn. */
  async render(messages: Message[], addGenerationPrompt = false): Promise<string> {
    return (await this.rendered(await this.prepare({ messages }), addGenerationPrompt)).text;
  }

  /** The prompt for generation: the conversation and the start of the assistant's answer. */
  async prompt(conversation: Conversation): Promise<string> {
    return (await this.rendered(await this.prepare(conversation), true)).text;
  }
}

/** Files with templates in the folder of tokenizer.json. The first one overrides tokenizer_config.json. */
export const TEMPLATE_FILES = [CHAT_TEMPLATE_FILE, TOOL_TEMPLATE_FILE] as const;

/** The chat template in the folder of a tokenizer.json, found as transformers finds it; null if there is none. */
export async function readChatTemplate(
  folder: string,
  config: TokenizerConfig,
  settings: TemplateSettings = {},
): Promise<ChatTemplate | null> {
  const [file, toolFile] = TEMPLATE_FILES.map((name) => join(folder, name));
  const [text, toolTemplate] = [await readIfThere(file!), await readIfThere(toolFile!)];
  if (text !== null || toolTemplate !== null) {
    const name = text === null ? toolFile : file;
    return new ChatTemplate(text ?? noDefault(['tool_use']), config, { ...settings, name, toolTemplate });
  }
  const { chat_template: stored } = config;
  const name = `${join(folder, 'tokenizer_config.json')}: chat_template`;
  if (typeof stored === 'string') return new ChatTemplate(stored, config, { ...settings, name });
  if (!Array.isArray(stored) || stored.length === 0) return null;
  const named = (wanted: string) => stored.find((one) => one.name === wanted)?.template ?? null;
  const template = named('default') ?? noDefault(stored.map((one) => one.name));
  return new ChatTemplate(template, config, { ...settings, name, toolTemplate: named('tool_use') });
}

/** A template that refuses every conversation, as transformers does if there are several and none is the default. */
function noDefault(names: readonly string[]): string {
  const problem = `none of the model's chat templates is named default (${names.join(', ')}); data.chatTemplate or --chat-template chooses one`;
  return `{{ raise_exception(${literal(problem)}) }}`;
}

export function contentOf(token: StoredToken | undefined): string {
  return typeof token === 'string' ? token : (token?.content ?? '');
}
