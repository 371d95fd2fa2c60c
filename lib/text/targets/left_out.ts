// What a record says and its documents do not.
import { OPENED_THOUGHTS, textOf, thoughtFieldOf, withoutThoughts } from '../messages.ts';
import type { Message } from '../records/record.ts';
import type { Document } from './marked_text.ts';

/** Characters of a tag and white space after it. */
const LONGEST_TAG = 40;

export function hasThoughts(text: string, message: Message): boolean {
  const field = thoughtFieldOf(message);
  if (field !== null && !text.includes((message[field] as string).trim())) return false;
  return text.includes(withoutThoughts(message.content).thoughts.trim());
}

export const hasRest = (text: string, message: Message) => text.includes(withoutThoughts(message.content).rest.trim());

/** Names of the functions that an answer calls. */
function callsOf({ tool_calls: calls }: Message): string[] {
  if (!Array.isArray(calls)) return [];
  return calls.map((call) => String(call?.function?.name ?? call?.name ?? ''));
}

/** Tells of answers whose words the chat template leaves out. */
export function tellLeftOut(
  messages: readonly Message[],
  documents: readonly Document[],
  tell: (what: string) => void,
): void {
  for (const { text, turns } of documents) {
    for (const { message, begin, end } of turns) {
      const answer = text.slice(begin, end);
      if (!hasRest(answer, messages[message]!) && !answer.includes(textOf(messages[message]!.content).trim())) {
        tell('an answer whose text the chat template changes or leaves out');
      }
      if (callsOf(messages[message]!).some((name) => !answer.includes(name))) {
        tell('an answer whose tool calls the chat template leaves out');
      }
      if (!hasThoughts(answer, messages[message]!)) {
        tell('an answer whose thoughts the chat template leaves out');
      }
      const [, opened] = OPENED_THOUGHTS.exec(text.slice(Math.max(0, begin - LONGEST_TAG), begin)) ?? [];
      if (opened !== undefined && !answer.includes(`</${opened}>`)) {
        tell("an answer without thoughts, where the chat template's prompt opens them");
      }
    }
  }
}
