// What a message's content may be, before a template sees it.
import type { Message } from './records/record.ts';

/** Roles that templates know beside the assistant's. Messages of others are context too, and reported in case an answer was meant. */
export const READ_ROLES = new Set([
  'system',
  'developer',
  'user',
  'tool',
  'function',
  'ipython',
  'documents',
  'context',
]);

/** A part of a message's content: text, or an assistant's thoughts where the template knows them. */
export type ContentPart = { type: 'text'; text: string } | { type: 'thinking'; thinking: string };

/** Names that services give to parts of text. */
const TEXT_TYPES = new Set(['text', 'input_text', 'output_text']);

/** Throws an Error that names the first message without content that can become text, and the field. */
export function checkMessages(messages: readonly Message[]): void {
  messages.forEach((message, i) => {
    const { role, content } = message;
    const place = `messages[${i}]`;
    if (content === null || content === undefined) {
      if (hasOtherContent(message)) return;
      throw new Error(`${place}: content is ${content === null ? 'null' : 'missing'}`);
    }
    if (Array.isArray(content)) partsOf(content, `${place}: content`);
    else if (typeof content !== 'string' && (role === 'user' || role === 'assistant' || typeof content !== 'object')) {
      throw new Error(`${place}: content must be text, got ${typeof content}`);
    }
  });
}

/** Whether a message says something though it has no content: calls of tools, thoughts. */
export function hasOtherContent(message: Message): boolean {
  const { tool_calls: calls, function_call: call } = message;
  return (Array.isArray(calls) && calls.length > 0) || Boolean(call) || thoughtFieldOf(message) !== null;
}

/** The parts of a content that is a list; throws an Error that names the part that is not text. */
export function partsOf(content: readonly unknown[], place = 'content'): ContentPart[] {
  return content.map((part, j) => toPart(part, `${place}[${j}]`));
}

function toPart(part: unknown, place: string): ContentPart {
  if (typeof part === 'string') return { type: 'text', text: part };
  const { type, text, thinking } = (part ?? {}) as Record<string, unknown>;
  if (type === 'thinking' && typeof thinking === 'string') return { type, thinking };
  if (type !== undefined && type !== null && !TEXT_TYPES.has(String(type))) {
    throw new Error(`${place}: is of type ${JSON.stringify(type)}; only text can be trained on`);
  }
  if (typeof text !== 'string')
    throw new Error(`${place}: text must be text, got ${text === null ? 'null' : typeof text}`);
  return { type: 'text', text };
}

/** A content's text, whatever its form, without its parts that are thoughts; '' where there is none. */
export function textOf(content: unknown): string {
  if (typeof content === 'string') return content;
  if (!Array.isArray(content)) return '';
  return partsOf(content)
    .map((part) => (part.type === 'text' ? part.text : ''))
    .join('');
}

/** The parts of a content that are thoughts. */
export function thoughtPartsOf(content: unknown): string[] {
  if (!Array.isArray(content)) return [];
  return partsOf(content).flatMap((part) => (part.type === 'thinking' ? [part.thinking] : []));
}

/** Fields of messages that other checks cover, or that a template need not read. */
const USUAL_FIELDS = new Set(['role', 'content', 'isTrained', 'name', 'tool_calls', 'tool_call_id', 'function_call']);

/** Further fields of messages that hold something. */
export function unusualFields(messages: readonly Message[]): Set<string> {
  const fields = new Set(messages.flatMap((message) => Object.keys(message)));
  return new Set([...fields].filter((field) => !USUAL_FIELDS.has(field) && !THOUGHT_FIELDS.includes(field)));
}

const THOUGHT_FIELDS = ['reasoning_content', 'reasoning', 'thinking', 'thought'];

/** The field that holds an assistant's thoughts; null: there is none. */
export function thoughtFieldOf(message: Message): string | null {
  const holds = (field: string) => typeof message[field] === 'string' && message[field].trim() !== '';
  return THOUGHT_FIELDS.find(holds) ?? null;
}

/** Names of tags around thoughts. */
const THOUGHT_TAGS = 'think|thinking|thought|thoughts|reasoning|reason';
/** <think> at the end of a prompt, which opens the answer's thoughts; </think>, which has closed them. */
export const OPENED_THOUGHTS = new RegExp(`<(${THOUGHT_TAGS})>\\s*$`);
export const CLOSED_THOUGHTS = new RegExp(`</(${THOUGHT_TAGS})>\\s*$`);
const THOUGHTS = new RegExp(`^\\s*(?:<(?:${THOUGHT_TAGS})>)?([^]*?)</(${THOUGHT_TAGS})>`);

/** A content cut at the tag that ends its thoughts; tag is null where it has none. */
export function withoutThoughts(content: unknown): { tag: string | null; thoughts: string; rest: string } {
  const text = textOf(content);
  const found = THOUGHTS.exec(text);
  if (!found) return { tag: null, thoughts: '', rest: text };
  return { tag: found[2]!, thoughts: found[1]!, rest: text.slice(found[0].length) };
}

/** A message without its calls and thoughts, and with another content. */
export function withContent(message: Message, content: unknown): Message {
  const { tool_calls: _calls, function_call: _call, ...rest } = message;
  for (const field of THOUGHT_FIELDS) delete rest[field];
  return { ...rest, content };
}
