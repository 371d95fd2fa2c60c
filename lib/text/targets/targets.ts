// Decides what of a conversation is trained on: for each turn of the assistant, what generation would write after the template's prompt.
import { briefName } from '../../brief.ts';
import type { ChatTemplate } from '../chat_template.ts';
import { formatJson } from '../json.ts';
import { READ_ROLES, unusualFields } from '../messages.ts';
import { hasTools } from '../probe_tools.ts';
import type { Conversation, Message } from '../records/record.ts';
import type { Turns } from './answer.ts';
import { generatedSpans } from './generated.ts';
import { joined } from './joined.ts';
import { findKept, type Kept, kindOf } from './kept.ts';
import { reportLeftOut } from './left_out.ts';
import type { Document, MarkedText, Span } from './marked_text.ts';
import { reportNotRead } from './not_read.ts';
import { answersInOne } from './one_rendering.ts';
import type { SpecialTokens } from './special.ts';
import { findTurnEnd, type TurnEnd } from './turn_end.ts';

export interface TargetOptions {
  /** Whether all of the text is trained on. @default false */
  trainOnPrompts?: boolean;
  /** Whether only the last of a conversation's answers is trained on. @default false */
  trainOnLastAnswer?: boolean;
}

/** Receives notices for the user about a record. */
export type Report = (what: string) => void;

/** Up to this many answers are found one by one, each by its own prompt: that costs no more than one rendering of all of them. */
const FEW = 3;
/** Number of kinds of conversations that are cached; the variables of records make new kinds. */
const MAX_KINDS = 256;

export class Targets {
  readonly #template: ChatTemplate;
  readonly #special: SpecialTokens;
  readonly #options: TargetOptions;
  /** By whether the conversation has tools. */
  readonly #turnEnds = new Map<boolean, Promise<TurnEnd>>();
  /** By kind of conversation. */
  readonly #kept = new Map<string, Promise<Kept>>();

  constructor(template: ChatTemplate, special: SpecialTokens, options: TargetOptions = {}) {
    this.#template = template;
    this.#special = special;
    this.#options = options;
  }

  /**
   * The documents of a conversation. It is one document if the template never rewrites earlier turns. Otherwise there is one for each
   * answer, but answers that continue one another share one. If the template marks what is generated, its marks decide.
   */
  async documents(given: Conversation, report: Report): Promise<MarkedText[]> {
    const conversation = await this.#template.prepare(given);
    // Uses the record's own messages, so that what their prepared form leaves out is also reported.
    const { messages } = given;
    for (const field of unusualFields(messages)) {
      if (!this.#template.mentions(field))
        report(`a field of messages that the chat template does not read: ${JSON.stringify(briefName(field))}`);
    }
    const { text: whole, generated } = await this.#template.rendered(conversation);
    if (this.#options.trainOnPrompts) {
      const document = await this.#all(conversation, whole, generated);
      await this.#reportLosses({ given, conversation, text: document.text }, report);
      return [document];
    }
    const targets = answersToTrainOn(conversation, this.#options.trainOnLastAnswer);
    if (targets.length === 0) {
      const roles = [...new Set(messages.map(({ role }) => role))].sort().join(', ');
      report(`a conversation without an answer to train on (roles: ${roles})`);
      return [{ text: whole, targets: [] }];
    }
    for (const role of new Set(messages.map((message) => message.role))) {
      if (role !== 'assistant' && !READ_ROLES.has(role))
        report(`a conversation with the role '${role}', which is not trained on`);
    }
    if (generated !== null) {
      const spans = await generatedSpans(this.#template, conversation, { generated, targets });
      if (spans.length === 0) report('a conversation in which the chat template marks nothing as generated');
      const isOpen = ([begin, end]: Span) =>
        !this.#special.endOf(whole.slice(begin, end)) && this.#special.nextIn(whole, end);
      await this.#reportLosses({ given, conversation, text: whole, targets }, report);
      if (spans.some(isOpen)) report('an answer whose end the chat template does not mark as generated');
      return [{ text: whole, targets: spans }];
    }
    const turns = await this.#turns(conversation, whole);
    const documents = await this.#find(turns, targets);
    if (!this.#special.isEmpty && documents.some((document) => document.turns.some(({ isEnded }) => !isEnded))) {
      report('an answer after which the chat template writes no token that ends it');
    }
    if (documents.length > 1) {
      report('a conversation with a document for each answer, as the chat template rewrites earlier turns');
    }
    reportLeftOut({ messages, documents, special: this.#special, turnEnd: turns.turnEnd }, report);
    await reportNotRead(turns, { texts: documents.map(({ text }) => text), lastAnswer: targets.at(-1)! }, report);
    return documents.map((document) => ({
      text: document.text,
      targets: document.turns.map(({ begin, end }) => [begin, end] as const),
    }));
  }

  /**
   * Reports what a text leaves out of its conversation, if the places of its answers are not known.
   * @param given as the record has it
   * @param targets the messages that are trained on: all answers
   */
  async #reportLosses(
    {
      given: { messages },
      conversation,
      text,
      targets = answersToTrainOn(conversation),
    }: { given: Conversation; conversation: Conversation; text: string; targets?: readonly number[] },
    report: Report,
  ): Promise<void> {
    const { special, turnEnd } = await this.#turns(conversation, text);
    const turns = targets.map((message) => ({ message, begin: 0, end: text.length, isEnded: true }));
    reportLeftOut({ messages, documents: [{ text, turns }], special, turnEnd }, report);
    await reportNotRead({ template: this.#template, conversation }, { texts: [text], lastAnswer: -1 }, report);
  }

  async #turns(conversation: Conversation, whole: string): Promise<Turns> {
    const tools = hasTools(conversation);
    if (!this.#turnEnds.has(tools)) this.#turnEnds.set(tools, findTurnEnd(this.#template, this.#special, tools));
    const turnEnd = (await this.#turnEnds.get(tools))!;
    return { conversation, template: this.#template, special: this.#special, turnEnd, whole };
  }

  /**
   * The whole conversation, with the end that its last answer gets. All of it is trained on, except the answers that are not to be trained
   * on.
   */
  async #all(conversation: Conversation, whole: string, generated: readonly Span[] | null): Promise<MarkedText> {
    const { messages } = conversation;
    const isLeft = ({ role, isTrained }: Message) => role === 'assistant' && isTrained === false;
    const left = messages.flatMap((message, i) => (isLeft(message) ? [i] : []));
    const isOpen = generated === null && messages.at(-1)?.role === 'assistant' && !isLeft(messages.at(-1)!);
    if (left.length === 0 && !isOpen) return { text: whole, targets: [[0, whole.length]] };
    const turns = await this.#turns(conversation, whole);
    const ended = isOpen ? (await joined(turns, [messages.length - 1]))[0]!.text : whole;
    const text = ended.startsWith(whole) ? ended : whole;
    const targets: Span[] = [];
    let done = 0;
    for (const [begin, end] of left.length > 0 ? await this.#spansIn(text, turns, { generated, targets: left }) : []) {
      if (begin > done) targets.push([done, begin]);
      done = end;
    }
    if (done < text.length) targets.push([done, text.length]);
    return { text, targets };
  }

  /** The spans of these answers in a text. Throws an Error if it does not have them. */
  async #spansIn(
    text: string,
    turns: Turns,
    { generated, targets }: { generated: readonly Span[] | null; targets: number[] },
  ): Promise<Span[]> {
    if (generated !== null) {
      const spans = await generatedSpans(this.#template, turns.conversation, { generated, targets });
      if (spans.length >= targets.length) return spans;
    } else {
      const documents = await this.#find(turns, targets);
      const [{ text: found, turns: answers }] = documents as [Document];
      if (documents.length === 1 && text.startsWith(found.slice(0, answers.at(-1)!.end))) {
        return answers.map(({ begin, end }) => [begin, end] as const);
      }
    }
    throw new Error(
      `messages[${targets[0]}]: is not to be trained on (weight: 0, train: false). With data.trainOnPrompts this needs a chat template that keeps earlier turns unchanged or marks answers; drop one of the two`,
    );
  }

  async #find(turns: Turns, targets: number[]): Promise<Document[]> {
    if (targets.length > FEW) {
      const kind = kindOf(turns.conversation);
      const name = formatJson(kind);
      const found = this.#kept.get(name) ?? findKept(turns, kind);
      if (this.#kept.size >= MAX_KINDS) this.#kept.clear();
      this.#kept.set(name, found);
      const { isKept, hasThoughts } = await found;
      const document = isKept ? await answersInOne(turns, targets, hasThoughts) : null;
      if (document) return [document];
    }
    return await joined(turns, targets);
  }
}

function answersToTrainOn({ messages, firstTarget = 0 }: Conversation, isLastOnly = false): number[] {
  const answers = messages.flatMap(({ role }, i) => (role === 'assistant' ? [i] : []));
  const asked = isLastOnly ? answers.slice(-1) : answers;
  return asked.filter((i) => i >= firstTarget && messages[i]!.isTrained !== false);
}
