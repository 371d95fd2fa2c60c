// Marks in messages, to find them in a rendering: characters that occur in no text, with the message's number.
import type { Message } from '../records/record.ts';

/** Unicode reserves U+FDD0 to U+FDDB, which occur in no text: begin, ten digits, end. */
const MARK = /\uFDD0([\uFDD1-\uFDDA]+)\uFDDB/g;

const markOf = (index: number) =>
  `\uFDD0${String(index).replace(/\d/g, (digit) => String.fromCharCode(0xfdd1 + Number(digit)))}\uFDDB`;

/** A rendering without its marks, and where they were. */
export interface Marks {
  text: string;
  /** By message: how often its mark occurs, and where the last one is. */
  count: Map<number, number>;
  last: Map<number, number>;
}

/** Adds marks to a message, and counts them: after the last word of its content, and after the names and texts of its tool calls. */
export function marked(message: Message, index: number): { message: Message; count: number } {
  const mark = markOf(index);
  let count = 0;
  const after = (text: string) => {
    if (text.trim() === '') return text;
    count += 1;
    const end = text.trimEnd().length;
    return text.slice(0, end) + mark + text.slice(end);
  };
  const inside = (value: unknown): unknown => {
    if (typeof value === 'string') return after(value);
    if (Array.isArray(value)) return value.map(inside);
    if (typeof value !== 'object' || value === null || Object.getPrototypeOf(value) !== Object.prototype) return value;
    return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, inside(one)]));
  };
  const inCall = (call: unknown): unknown => {
    if (typeof call !== 'object' || call === null) return call;
    const { function: called, name, arguments: given } = call as Record<string, unknown>;
    if (called !== undefined) return { ...call, function: inCall(called) };
    return { ...call, name: inside(name), arguments: inside(given) };
  };
  const changed = { ...message };
  const { content, tool_calls: calls } = message;
  if (typeof content === 'string') changed.content = after(content);
  else if (Array.isArray(content)) {
    const last = content.findLastIndex(({ text }) => typeof text === 'string' && text.trim() !== '');
    changed.content = content.map((part, i) => (i === last ? { ...part, text: after(part.text) } : part));
  }
  if (Array.isArray(calls)) changed.tool_calls = calls.map(inCall);
  return { message: changed, count };
}

/** Removes the marks from a rendering. */
export function unmarked(rendering: string): Marks {
  const marks: Marks = { text: '', count: new Map(), last: new Map() };
  let begin = 0;
  let text = '';
  for (const found of rendering.matchAll(MARK)) {
    text += rendering.slice(begin, found.index);
    begin = found.index + found[0].length;
    const index = Number(found[1]!.replace(/./g, (digit) => String(digit.charCodeAt(0) - 0xfdd1)));
    marks.count.set(index, (marks.count.get(index) ?? 0) + 1);
    marks.last.set(index, text.length);
  }
  marks.text = text + rendering.slice(begin);
  return marks;
}
