// Records to token ids, each with whether it is trained on.

import type { DataRecord } from './records/record.ts';
import type { Tokenizer } from './tokenizer.ts';

export interface EncodeOptions {
  /** Whether prompts and the user's turns are trained on too. @default false */
  trainOnPrompts?: boolean;
}

/** Ids, of which those that are not trained on are stored as -1 - id. */
export type MarkedIds = Int32Array;

export const idOf = (marked: number): number => (marked < 0 ? -1 - marked : marked);

/**
 * One record's ids: what the tokenizer puts before a text, the text, the end-of-text id. A conversation is what its template makes of it,
 * and nothing besides.
 * @param isBegin, isEnd whether the record's text is its document's first and last part
 */
export async function encodeRecord(
  record: DataRecord,
  tokenizer: Tokenizer,
  { trainOnPrompts = false }: EncodeOptions,
  isBegin = true,
  isEnd = true,
): Promise<MarkedIds> {
  const sides = { begin: isBegin, end: isEnd };
  if ('text' in record) return tokenizer.wrap(await tokenizer.encode(record.text), sides);
  if ('prompt' in record) {
    const prompt = tokenizer.wrap(await tokenizer.encode(record.prompt), { begin: isBegin });
    const completion = tokenizer.wrap(await tokenizer.encode(record.completion), { end: isEnd });
    return joined([trainOnPrompts ? prompt : prompt.map(mark), completion]);
  }
  const { chatTemplate } = tokenizer;
  if (!chatTemplate) {
    throw new Error(
      'conversations need a chat template: chat_template.jinja or tokenizer_config.json beside tokenizer.json',
    );
  }
  if (trainOnPrompts) return joined([await tokenizer.encode(await chatTemplate.render(record.messages))]);
  const parts: Int32Array[] = [];
  for (const { text, isTarget } of await chatTemplate.segments(record.messages, record.firstTarget)) {
    const ids = await tokenizer.encode(text);
    parts.push(isTarget ? ids : ids.map(mark));
  }
  return joined(parts);
}

const mark = (id: number) => -1 - id;

function joined(parts: readonly ArrayLike<number>[]): Int32Array {
  const whole = new Int32Array(parts.reduce((sum, { length }) => sum + length, 0));
  let offset = 0;
  for (const part of parts) {
    whole.set(part, offset);
    offset += part.length;
  }
  return whole;
}
