// Reports what a record has but its documents do not.
import {
  hasOtherContent,
  OPENED_THOUGHTS,
  textOf,
  thoughtFieldOf,
  thoughtPartsOf,
  withoutThoughts,
} from '../messages.ts';
import type { Message } from '../records/record.ts';
import type { Document } from './marked_text.ts';
import type { SpecialTokens } from './special.ts';
import type { TurnEnd } from './turn_end.ts';

/** Longest tag with the white space after it, in characters. */
const LONGEST_TAG = 40;

export function hasThoughts(text: string, message: Message): boolean {
  const field = thoughtFieldOf(message);
  if (field !== null && !text.includes((message[field] as string).trim())) return false;
  const { thoughts } = withoutThoughts(message.content);
  return [thoughts, ...thoughtPartsOf(message.content)].every((one) => text.includes(one.trim()));
}

export const hasRest = (text: string, message: Message) => text.includes(withoutThoughts(message.content).rest.trim());

/** The names of the functions that an answer calls. */
function callsOf({ tool_calls: calls }: Message): string[] {
  if (!Array.isArray(calls)) return [];
  return calls.map((call) => String(call?.function?.name ?? call?.name ?? ''));
}

/** Whether an answer includes its calls: their names occur in it, and not only in its text or in a special token. */
function hasCalls(answer: string, message: Message, special: SpecialTokens): boolean {
  const names = callsOf(message);
  if (names.length === 0) return true;
  const text = textOf(message.content).trim();
  const rest = special.without(text === '' ? answer : answer.replace(text, () => ' '));
  return names.every((name) => rest.includes(name));
}

function isEmpty(message: Message): boolean {
  const { content } = message;
  const isText = typeof content === 'string' || Array.isArray(content);
  return isText && textOf(content).trim() === '' && thoughtPartsOf(content).length === 0 && !hasOtherContent(message);
}

/**
 * The special token at the end of an answer's text to which the template adds its own end of turn; null if there is none.
 * @param text from the answer on
 */
function ownEnd(text: string, message: Message, { special, turnEnd }: Ends): string | null {
  const content = textOf(message.content).trim();
  const own = turnEnd.tail === null ? null : special.endOf(content);
  const begin = own === null ? -1 : text.indexOf(content);
  return begin >= 0 && special.nextIn(text, begin + content.length).trim() === turnEnd.token ? own : null;
}

interface Ends {
  special: SpecialTokens;
  turnEnd: Pick<TurnEnd, 'token' | 'tail'>;
}

/** Reports answers whose words the chat template leaves out, empty answers, and answers that end twice. */
export function reportLeftOut(
  { messages, documents, special, turnEnd }: Ends & { messages: readonly Message[]; documents: readonly Document[] },
  report: (what: string) => void,
): void {
  for (const { text, turns } of documents) {
    for (const { message, begin, end } of turns) {
      const answer = text.slice(begin, end);
      if (isEmpty(messages[message]!)) report('an answer that is empty');
      if (!hasRest(answer, messages[message]!) && !answer.includes(textOf(messages[message]!.content).trim())) {
        report('an answer whose text the chat template changes or leaves out');
      }
      if (!hasCalls(answer, messages[message]!, special)) {
        report('an answer whose tool calls the chat template leaves out');
      }
      if (!hasThoughts(answer, messages[message]!)) {
        report('an answer whose thoughts the chat template leaves out');
      }
      const own = ownEnd(text.slice(begin), messages[message]!, { special, turnEnd });
      if (own !== null) {
        report(
          `an answer whose text ends with ${own}, to which the chat template adds ${turnEnd.token}: it ends twice`,
        );
      }
      const [, opened] = OPENED_THOUGHTS.exec(text.slice(Math.max(0, begin - LONGEST_TAG), begin)) ?? [];
      if (opened !== undefined && !answer.includes(`</${opened}>`)) {
        report("an answer without thoughts, where the chat template's prompt opens them");
      }
    }
  }
}
