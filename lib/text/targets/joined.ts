// Answers as documents; answers that continue one another share one.
import { setImmediate } from 'node:timers/promises';
import { answerAt, type Turns } from './answer.ts';
import type { Document } from './marked_text.ts';

/** The documents of the answers in these messages. Each answer is found exactly, which takes a few renderings. */
export async function joined(turns: Turns, targets: readonly number[]): Promise<Document[]> {
  const documents: Document[] = [];
  for (const message of targets) {
    await setImmediate(); // each answer takes time proportional to all that precedes it
    const { text, begin, end, isEnded } = await answerAt(turns, message);
    const turn = { message, begin, end, isEnded };
    const last = documents.at(-1);
    const done = last?.turns.at(-1)?.end ?? 0;
    if (last && begin >= done && text.startsWith(last.text.slice(0, done))) {
      last.text = text;
      last.turns.push(turn);
    } else documents.push({ text, turns: [turn] });
  }
  const last = documents.at(-1)!;
  const end = last.turns.at(-1)!.end;
  // The last document includes what follows its answer.
  if (turns.whole.length > last.text.length && turns.whole.startsWith(last.text.slice(0, end))) last.text = turns.whole;
  return documents;
}
