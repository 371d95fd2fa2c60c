// Finds out with a small conversation of the same kind whether a template leaves earlier turns unchanged when more follow.
import { thoughtFieldOf, withoutThoughts } from '../messages.ts';
import type { Conversation, Message } from '../records/record.ts';
import type { Turns } from './answer.ts';
import { joined } from './joined.ts';
import { hasThoughts } from './left_out.ts';
import type { Document } from './marked_text.ts';

/** The properties of a conversation that templates treat specially. */
export interface Kind {
  hasSystem: boolean;
  hasCalls: boolean;
  hasTools: boolean;
  /** thoughtField: the field that has thoughts. thoughtTag: the tag around thoughts in a content. */
  thoughtField: string | null;
  thoughtTag: string | null;
  variables: Record<string, unknown>;
}

export function kindOf({ messages, tools, variables = {} }: Conversation): Kind {
  const answers = messages.filter(({ role }) => role === 'assistant');
  const tag = answers.map(({ content }) => withoutThoughts(content).tag).find((one) => one !== null);
  return {
    hasSystem: messages.some(({ role }) => role === 'system'),
    hasCalls: messages.some(({ tool_calls: calls }) => Array.isArray(calls) && calls.length > 0),
    hasTools: tools !== undefined,
    variables,
    thoughtField: answers.map(thoughtFieldOf).find((one) => one !== null) ?? null,
    thoughtTag: tag ?? null,
  };
}

/** What a template does with conversations of one kind. */
export interface Kept {
  /** Whether one document has all their answers completely; false also if the template refuses the conversation. */
  isKept: boolean;
  /** Whether the template writes the thoughts of answers. */
  hasThoughts: boolean;
}

export async function findKept(turns: Turns, kind: Kind): Promise<Kept> {
  const messages: Message[] = [];
  if (kind.hasSystem) messages.push({ role: 'system', content: 'Qxrule' });
  for (const [i, word] of ['Qxa', 'Qxb', 'Qxc'].entries()) {
    messages.push({ role: 'user', content: `${word}ask` });
    if (kind.hasCalls && i < 2) {
      const called = { name: 'Qxname', arguments: { Qxkey: word } };
      const id = `callQx00${i}`;
      messages.push({ role: 'assistant', content: '', tool_calls: [{ id, type: 'function', function: called }] });
      messages.push({ role: 'tool', name: 'Qxname', tool_call_id: id, content: `${word}result` });
    }
    messages.push(answerOf(word, kind));
  }
  try {
    const { template, conversation } = turns;
    const prepared = await template.prepare({ ...conversation, messages });
    const { text: whole } = await template.rendered(prepared);
    const targets = prepared.messages.flatMap(({ role }, i) => (role === 'assistant' ? [i] : []));
    const documents = await joined({ ...turns, conversation: prepared, whole }, targets);
    const [{ text, turns: answers }] = documents as [Document];
    const shown = answers.map(({ message, begin, end }) => hasThoughts(text.slice(begin, end), messages[message]!));
    const isSame = shown.every((one) => one === shown[0]);
    return { isKept: documents.length === 1 && isSame, hasThoughts: shown[0]! };
  } catch {
    return { isKept: false, hasThoughts: false };
  }
}

function answerOf(word: string, { thoughtField, thoughtTag: tag }: Kind): Message {
  const thoughts = tag === null ? '' : `<${tag}>\n${word}thought\n</${tag}>\n\n`;
  const fields = thoughtField === null ? {} : { [thoughtField]: `${word}reason` };
  return { role: 'assistant', content: `${thoughts}${word}say`, ...fields };
}
