// Finds out with a small conversation how a template ends the assistant's turns.
import type { ChatTemplate } from '../chat_template.ts';
import { PROBE_TOOLS } from '../probe_tools.ts';
import type { Message } from '../records/record.ts';
import type { SpecialTokens } from './special.ts';

export interface TurnEnd {
  /** The token that ends an answer; null if none does. */
  token: string | null;
  /** The text after an answer, up to and including the token that ends it; null if the template writes no such token. */
  tail: string | null;
  /** The end of `tail` that the template writes only if another message follows; '' if it always writes all. */
  missing: string;
  /**
   * What the template writes only after the end of the last turn: the token that ends texts, or the header of the next answer if that does
   * not depend on add_generation_prompt; '' if nothing.
   */
  closing: string;
}

const [USER, ANSWER, NEXT] = ['Qxask', 'Qxsay', 'Qxgo'];
const QUESTION: Message[] = [{ role: 'user', content: USER }];
const ONE: Message[] = [...QUESTION, { role: 'assistant', content: ANSWER }];
const TWO: Message[] = [...ONE, { role: 'user', content: NEXT }, { role: 'assistant', content: 'Qxend' }];

/** @param hasTools whether the conversations have tools, since a template may write them otherwise */
export async function findTurnEnd(template: ChatTemplate, special: SpecialTokens, hasTools: boolean): Promise<TurnEnd> {
  const tools = hasTools ? { tools: PROBE_TOOLS } : {};
  const rendered = async (messages: Message[], isPrompt = false) =>
    (await template.rendered(await template.prepare({ messages, ...tools }), isPrompt)).text;
  let [prompt, one, two] = ['', '', ''];
  try {
    prompt = await rendered(QUESTION, true);
    one = await rendered(ONE);
    two = await rendered(TWO);
  } catch {
    return { token: null, tail: null, missing: '', closing: '' };
  }
  const behind = (text: string) => text.slice(text.lastIndexOf(ANSWER) + ANSWER.length);
  const last = behind(one);
  const then = behind(two.slice(0, two.lastIndexOf(NEXT)));
  let closing = '';
  if (!then.startsWith(last.trimEnd())) {
    const ended = special.upToFirst(last) ?? '';
    const rest = last.slice(ended.length);
    if (then.startsWith(ended) && (ended !== '' || prompt.endsWith(rest))) closing = rest;
  }
  const tail = last.slice(0, last.length - closing.length);
  const token = special.addedEndOf(tail);
  if (token !== null) return { token, tail: tail.trimEnd(), missing: '', closing };
  const following = special.nextIn(then, tail.length);
  // A text that is also before the first question is the header of a question, and does not end a conversation.
  const isHeader = two.slice(0, two.indexOf(USER)).endsWith(then.slice(tail.length).trimStart());
  const next = following === '' ? null : following.trim();
  if (next === null || isHeader) return { token: next, tail: null, missing: '', closing };
  return { token: next, tail: tail + following, missing: following, closing };
}
