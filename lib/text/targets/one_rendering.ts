// Finds all answers of a long conversation in one rendering, for templates that leave earlier turns unchanged when more follow.
import { textOf } from '../messages.ts';
import type { Message } from '../records/record.ts';
import { answerAt, attempt, isQuestion, type Turns } from './answer.ts';
import { hasRest, hasThoughts } from './left_out.ts';
import type { Document, Turn } from './marked_text.ts';
import { type Marks, marked, unmarked } from './marks.ts';

/** Prompts are rendered for the last answer and for those at 1/4, 1/16, … of the way to it: together at most half a rendering more. */
const RATIO = 4;

/**
 * Makes the document of a conversation. The text between a message and its answer, and the text after an answer, is rendered once for each
 * kind of message and must then be found at all others. Null if it is not, or if the template has left out or rewritten something; a few
 * renderings were then in vain.
 * @param thoughts whether the template writes an answer's thoughts
 */
export async function answersInOne(
  turns: Turns,
  targets: readonly number[],
  thoughts: boolean,
): Promise<Document | null> {
  const { whole, conversation } = turns;
  const one = await OneRendering.of(turns);
  if (!one) return null;
  const found: Turn[] = [];
  for (const message of targets.slice(0, -1)) {
    const turn = await one.turnOf(message);
    if (!turn || turn.end <= turn.begin || turn.begin < (found.at(-1)?.end ?? 0)) return null;
    const [text, given] = [whole.slice(turn.begin, turn.end), conversation.messages[message]!];
    if (!hasRest(text, given) || (thoughts && !hasThoughts(text, given))) return null;
    found.push(turn);
  }
  for (let k = Math.floor(found.length / RATIO); ; k = Math.floor(k / RATIO)) {
    if (!(await one.hasPrompt(found[k]!))) return null;
    if (k === 0) break;
  }
  const message = targets.at(-1)!;
  const { text, begin, end, isEnded } = await answerAt(turns, message);
  const done = found.at(-1)!.end;
  if (begin < done || text.slice(0, done) !== whole.slice(0, done)) return null;
  found.push({ message, begin, end, isEnded });
  return { text: whole.startsWith(text.slice(0, end)) ? whole : text, turns: found };
}

/** A rendering, and where in it the last words of the messages are. */
class OneRendering {
  readonly #turns: Turns;
  readonly #marks: Marks;
  /** The text between a message's last word and the answer, by the kinds of messages from there on. */
  readonly #between = new Map<string, string>();
  /** The text after an answer's last word, up to the end of the turn. */
  readonly #after = new Map<string, { tail: string; isEnded: boolean }>();

  private constructor(turns: Turns, marks: Marks) {
    this.#turns = turns;
    this.#marks = marks;
  }

  /** Null if a message is not written as it is, or is written several times or out of order. */
  static async of(turns: Turns): Promise<OneRendering | null> {
    const { conversation, template, whole } = turns;
    const all = conversation.messages.map(marked);
    const messages = all.map(({ message }) => message);
    const marks = unmarked((await template.rendered({ ...conversation, messages })).text);
    let last = -1;
    for (const [i, { count }] of all.entries()) {
      const at = marks.last.get(i);
      if (at === undefined) continue; // has no word, or is not written
      if (marks.count.get(i) !== count || at < last) return null;
      last = at;
    }
    return marks.text === whole ? new OneRendering(turns, marks) : null;
  }

  async turnOf(message: number): Promise<Turn | null> {
    const { whole, conversation } = this.#turns;
    const given = conversation.messages[message]!;
    const begin = this.#beginOf(message);
    const after = this.#after.get(this.#kindOf(message));
    if (begin === null || !after) {
      const { text, ...answer } = await answerAt(this.#turns, message);
      if (!whole.startsWith(text.slice(0, answer.end))) return null;
      const turn = { message, ...answer };
      this.#remember(turn);
      return turn;
    }
    const last = this.#marks.last.get(message) ?? begin;
    const end = this.#endAfter(last, after.tail, hasCalls(given));
    if (end === null || end > (this.#marks.last.get(message + 1) ?? end)) return null;
    return { message, begin, end, isEnded: after.isEnded };
  }

  /** Renders the prompt of an answer and checks that the text before the answer equals it. */
  async hasPrompt({ message, begin }: Turn): Promise<boolean> {
    const earlier = this.#turns.conversation.messages.slice(0, message);
    if (!earlier.some(isQuestion)) return true;
    return (await attempt(this.#turns, earlier, true)) === this.#turns.whole.slice(0, begin);
  }

  #beginOf(message: number): number | null {
    const anchor = this.#anchorOf(message);
    if (!anchor) return null;
    const between = this.#between.get(anchor.kinds);
    if (between === undefined || !this.#turns.whole.startsWith(between, anchor.at)) return null;
    return anchor.at + between.length;
  }

  /** The last word before an answer, and the kinds of the messages from there on; null if there is none. */
  #anchorOf(message: number): { at: number; kinds: string } | null {
    let kinds = '';
    for (let i = message - 1; i >= 0; i--) {
      kinds += this.#kindOf(i);
      const at = this.#marks.last.get(i);
      if (at !== undefined) return { at, kinds };
    }
    return null;
  }

  #endAfter(last: number, tail: string, isCall: boolean): number | null {
    const { whole, special } = this.#turns;
    if (whole.startsWith(tail, last)) return last + tail.length;
    // The numbers and brackets after the last text in a call's arguments may differ.
    const token = isCall ? special.endOf(tail) : null;
    const begin = token === null ? -1 : whole.indexOf(token, last);
    return begin < 0 ? null : begin + token!.length;
  }

  #remember({ message, begin, end, isEnded }: Turn): void {
    const { whole } = this.#turns;
    const anchor = this.#anchorOf(message);
    if (anchor) this.#between.set(anchor.kinds, whole.slice(anchor.at, begin));
    const last = this.#marks.last.get(message) ?? begin;
    this.#after.set(this.#kindOf(message), { tail: whole.slice(last, end), isEnded });
  }

  /**
   * The kind of a message: a template writes the same after messages of one kind. White space at the end of a content stays or is trimmed.
   */
  #kindOf(message: number): string {
    const given = this.#turns.conversation.messages[message]!;
    const calls = hasCalls(given);
    const space = calls ? '' : /\s*$/.exec(textOf(given.content))![0];
    return JSON.stringify([given.role, calls, this.#marks.last.has(message), space]);
  }
}

const hasCalls = ({ tool_calls: calls }: Message) => Array.isArray(calls) && calls.length > 0;
