// All answers of a long conversation in one rendering of it, for templates that keep what they have written when more follows.
import { textOf } from '../messages.ts';
import type { Message } from '../records/record.ts';
import { answerAt, attempt, isQuestion, type Turns } from './answer.ts';
import { hasRest, hasThoughts } from './left_out.ts';
import type { Document, Turn } from './marked_text.ts';
import { type Marks, marked, unmarked } from './marks.ts';

/** Prompts are rendered for the last answer and for those a fourth, a sixteenth … of the way to it: no more than another half in all. */
const RATIO = 4;

/**
 * The document of a conversation. What stands between a message and the answer to it, and after an answer, is rendered for the first of
 * each kind and must stand at all others. null: it does not, or the template has left out or rewritten something; a few renderings are
 * lost.
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

/** A rendering, of which it is known where it has the messages' last words. */
class OneRendering {
  readonly #turns: Turns;
  readonly #marks: Marks;
  /** What stands between a message's last word and the answer, by the kinds of messages from there on. */
  readonly #between = new Map<string, string>();
  /** What stands after an answer's last word, up to the end of the turn. */
  readonly #after = new Map<string, { tail: string; isEnded: boolean }>();

  private constructor(turns: Turns, marks: Marks) {
    this.#turns = turns;
    this.#marks = marks;
  }

  /** null: a message is not written as it is, or is written several times or out of order. */
  static async of(turns: Turns): Promise<OneRendering | null> {
    const { conversation, template, whole } = turns;
    const all = conversation.messages.map(marked);
    const messages = all.map(({ message }) => message);
    const marks = unmarked((await template.rendered({ ...conversation, messages })).text);
    let last = -1;
    for (const [i, { count }] of all.entries()) {
      const at = marks.last.get(i);
      if (at === undefined) continue; // without a word, or not written
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

  /** Whether what stands before an answer is its prompt, by rendering that. */
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

  /** The last word before an answer, and the kinds of the messages from there on; null: there is none. */
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
    // Numbers and brackets after the last text of a call's arguments differ.
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

  /** Messages after which a template writes the same: white space at a content's end stays or is trimmed. */
  #kindOf(message: number): string {
    const given = this.#turns.conversation.messages[message]!;
    const calls = hasCalls(given);
    const space = calls ? '' : /\s*$/.exec(textOf(given.content))![0];
    return JSON.stringify([given.role, calls, this.#marks.last.has(message), space]);
  }
}

const hasCalls = ({ tool_calls: calls }: Message) => Array.isArray(calls) && calls.length > 0;
