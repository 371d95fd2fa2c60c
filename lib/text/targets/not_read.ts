// Reports context of a record that a chat template leaves out: messages that are not answers, tools, documents.
import { textOf, thoughtPartsOf } from '../messages.ts';
import type { Message } from '../records/record.ts';
import { attempt, type Turns } from './answer.ts';
import { marked, unmarked } from './marks.ts';

/** A match of this many characters in a rendering is a message's text and no coincidence. */
const SURE = 16;

/** Where the context may be: the texts of documents, and the prompt of the last answer in them; -1: only the whole. */
interface Read {
  texts: readonly string[];
  lastAnswer: number;
}

type Source = Pick<Turns, 'template' | 'conversation'>;

/** Reports each kind of context once. */
export async function reportNotRead(source: Source, read: Read, report: (what: string) => void): Promise<void> {
  const roles = new Set((await messagesNotRead(source, read)).map(({ role }) => role));
  for (const role of roles) report(`a message of role ${role} that the chat template leaves out`);
  for (const field of ['tools', 'documents'] as const) {
    const given = source.conversation[field];
    if (!given || given.length === 0) continue;
    const without = { ...source, conversation: { ...source.conversation, [field]: [] } };
    const [some, none] = [await renderings(source, read), await renderings(without, read)];
    if (some.every((text, k) => text === none[k])) report(`${field} that the chat template leaves out`);
  }
}

/** Renders the whole and, if it counts, the prompt of the last answer. */
async function renderings(source: Source, { lastAnswer }: Read, messages = source.conversation.messages) {
  const texts = [await attempt(source, messages, false)];
  if (lastAnswer >= 0) texts.push(await attempt(source, messages.slice(0, lastAnswer), true));
  return texts;
}

async function messagesNotRead(source: Source, read: Read): Promise<Message[]> {
  const { messages } = source.conversation;
  const others = messages.flatMap((message, i) => (message.role === 'assistant' ? [] : [i]));
  const has = wordsIn(read.texts);
  const isFound = new Map(others.map((i) => [i, has(messages[i]!)]));
  const isShort = ({ role, content }: Message) => role !== 'user' && textOf(content).trim().length < SURE;
  const isUnsure = (i: number) =>
    !isFound.get(i) || (isShort(messages[i]!) && textOf(messages[i]!.content).trim() !== '');
  if (!others.some(isUnsure)) return [];
  const markedMessages = messages.map((message, i) =>
    message.role === 'assistant' ? message : marked(message, i).message,
  );
  const texts = await renderings(source, read, markedMessages);
  const seen = new Set(texts.flatMap((text) => [...unmarked(text ?? '').count.keys()]));
  const isRefused = texts.every((text) => text === null);
  return others.filter((i) => isUnsure(i) && !(isRefused ? isFound.get(i) : seen.has(i))).map((i) => messages[i]!);
}

/** Returns a function that searches for the words of messages, each first after the one before it. */
function wordsIn(texts: readonly string[]): (message: Message) => boolean {
  const from = texts.map(() => 0);
  const has = (words: string) =>
    texts.some((text, k) => {
      const at = text.indexOf(words, from[k]);
      if (at >= 0) from[k] = at + words.length;
      return at >= 0 || text.includes(words);
    });
  return ({ content }) => [textOf(content), ...thoughtPartsOf(content)].every((words) => has(words.trim()));
}
