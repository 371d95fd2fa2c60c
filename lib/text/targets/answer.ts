// One answer of the assistant as a document: the prompt that generation would see, and what it should write after it.

import type { ChatTemplate } from '../chat_template.ts';
import { TemplateBudgetError } from '../jinja/errors.ts';
import { CLOSED_THOUGHTS, OPENED_THOUGHTS, textOf, withContent } from '../messages.ts';
import type { Conversation, Message } from '../records/record.ts';
import { commonLength } from './marked_text.ts';
import { marked, unmarked } from './marks.ts';
import type { SpecialTokens } from './special.ts';
import type { TurnEnd } from './turn_end.ts';

/** A prepared conversation, and what all its answers need. */
export interface Turns {
  conversation: Conversation;
  template: ChatTemplate;
  special: SpecialTokens;
  turnEnd: TurnEnd;
  /** The whole conversation as text. */
  whole: string;
}

/** text[begin, end) is trained on. */
export interface Answer {
  text: string;
  begin: number;
  end: number;
  /** Whether the answer ends with a token that ends generation. */
  isEnded: boolean;
}

/** A character with which no content begins. */
const OTHER = '\uFDD0';

/** Finds the answer in message i by rendering the messages before it, and those up to and including it. */
export async function answerAt(turns: Turns, i: number): Promise<Answer> {
  const { conversation, turnEnd, whole } = turns;
  const { messages } = conversation;
  const isLast = i === messages.length - 1;
  const earlier = messages.slice(0, i);
  // Without a question, as before a greeting, there is no prompt: templates refuse it or invent one.
  const before = earlier.some(isQuestion) ? await attempt(turns, earlier, true) : null;
  const upTo = isLast ? whole : await attempt(turns, [...earlier, messages[i]!], false);
  if (upTo === null) return await answerInWhole(turns, i);
  const { closing } = turnEnd;
  const rendered = closing !== '' && upTo.endsWith(closing) ? upTo.slice(0, -closing.length) : upTo;
  if (before !== null && rendered.startsWith(before)) {
    return ended(turns, { text: rendered, begin: before.length }, isLast);
  }
  const other = await attempt(turns, [...earlier, withContent(messages[i]!, otherContent(messages[i]!))], false);
  if (other === null) return await answerInWhole(turns, i);
  const contentBegin = commonLength(rendered, other);
  if (before === null) return ended(turns, { text: rendered, begin: contentBegin }, isLast);
  // The rendering does not begin with the prompt. The prompt is what generation sees.
  const written = (await headerBeyond(turns, i, rendered.slice(0, contentBegin))) + rendered.slice(contentBegin);
  const answer = afterPrompt(before, written, textOf(messages[i]!.content));
  return ended(turns, { text: before + answer, begin: before.length }, isLast);
}

export const isQuestion = ({ role }: Message) => role !== 'system' && role !== 'developer' && role !== 'assistant';
const otherContent = ({ content }: Message) => (Array.isArray(content) ? [{ type: 'text', text: OTHER }] : OTHER);

/**
 * What a template writes between the prompt and the content if the rendering differs before that: the space of " yes" after "[/INST]".
 * @param upToContent the rendering before the content of message i
 */
async function headerBeyond(turns: Turns, i: number, upToContent: string): Promise<string> {
  const { messages } = turns.conversation;
  const before = messages.slice(0, i).map((message, j) => (j === i - 1 ? marked(message, j).message : message));
  const behindLast = (text: string | null) => {
    const { last, text: plain } = unmarked(text ?? '');
    return { plain, at: last.get(i - 1) };
  };
  const prompt = behindLast(await attempt(turns, before, true));
  const whole = behindLast(await attempt(turns, [...before, messages[i]!], false));
  if (prompt.at === undefined || whole.at === undefined || !whole.plain.startsWith(upToContent)) return '';
  const header = upToContent.slice(whole.at);
  const asked = prompt.plain.slice(prompt.at);
  return header.startsWith(asked) ? header.slice(asked.length) : '';
}

/** Renders messages; null if the template refuses them. */
export async function attempt(
  { template, conversation }: Pick<Turns, 'template' | 'conversation'>,
  messages: Message[],
  isPrompt: boolean,
): Promise<string | null> {
  try {
    return (await template.rendered({ ...conversation, messages }, isPrompt)).text;
  } catch (error) {
    if (error instanceof TemplateBudgetError) throw error;
    return null;
  }
}

/** Finds an answer that the template renders only if more messages follow: renders the whole with another answer in its place. */
async function answerInWhole(turns: Turns, i: number): Promise<Answer> {
  const { conversation, template, special, turnEnd, whole } = turns;
  const { messages } = conversation;
  const other = messages.with(i, withContent(messages[i]!, otherContent(messages[i]!)));
  const { text } = await template.rendered({ ...conversation, messages: other });
  const begin = commonLength(whole, text);
  const after = text.length - (text.lastIndexOf(OTHER) + OTHER.length);
  const end = whole.length - after;
  if (end < begin || whole.slice(end) !== text.slice(text.length - after)) {
    throw new Error(`chat template: messages[${i}]: cannot be found in the rendered template`);
  }
  const tail = turnEnd.tail !== null && whole.startsWith(turnEnd.tail, end) ? turnEnd.tail : special.nextIn(whole, end);
  return { text: whole.slice(0, end + tail.length), begin, end: end + tail.length, isEnded: tail !== '' };
}

/**
 * What generation should write after a prompt.
 * @param answer as the template renders it without the prompt
 * @param content of the message
 */
function afterPrompt(prompt: string, answer: string, content: string): string {
  const [, opened] = OPENED_THOUGHTS.exec(prompt) ?? [];
  const [, closed] = CLOSED_THOUGHTS.exec(prompt) ?? [];
  if (closed !== undefined) {
    const end = answer.lastIndexOf(`</${closed}>`);
    return end < 0 ? answer : answer.slice(end + closed.length + 3).replace(/^\n+/, '');
  }
  if (opened === undefined) return answer;
  const [tag, closing] = [`<${opened}>`, `</${opened}>`];
  const isThought = (text: string) => text.includes(closing);
  let thought = '';
  if (!isThought(answer) && isThought(content)) {
    // The template leaves thoughts out of all answers, but the record has them.
    const end = content.lastIndexOf(closing) + closing.length;
    thought = content.slice(0, end) + /^\s*/.exec(content.slice(end))![0];
  }
  const text = thought + (thought === '' ? answer : answer.trimStart());
  return text.trimStart().startsWith(tag) ? text.trimStart().slice(tag.length).trimStart() : text;
}

/** Ends an answer with the token that ends a turn, if the template writes that only before another turn, or never. */
function ended(
  { special, turnEnd, whole }: Turns,
  { text, begin }: { text: string; begin: number },
  isLast: boolean,
): Answer {
  const trimmed = text.trimEnd();
  const token = turnEnd.tail?.trimStart() ?? '';
  if (trimmed.length > begin && (special.endOf(trimmed) !== null || (token !== '' && trimmed.endsWith(token)))) {
    return { text, begin, end: trimmed.length, isEnded: true };
  }
  let missing = turnEnd.missing;
  if (!isLast && whole.startsWith(text)) missing = special.nextIn(whole, text.length);
  else if (isLast && turnEnd.tail === null) missing = special.endOfText;
  const end = text.length + missing.length;
  return { text: text + missing, begin, end, isEnded: missing !== '' };
}
