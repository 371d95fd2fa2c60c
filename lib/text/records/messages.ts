// Converts messages of files to those that templates expect.
import { isDeepStrictEqual } from 'node:util';
import { brief } from '../../brief.ts';
import { Float } from '../json.ts';
import { parsed, turnOfCalls, withToolCalls } from './calls.ts';
import type { Message } from './record.ts';
import { isCall, roleFrom, roleOf } from './roles.ts';

/** Fields by which a message says whether it is to be trained on. */
const SWITCHES: ReadonlySet<string> = new Set(['weight', 'train', 'training', 'loss']);

/**
 * Converts a list of { role, content } or of { from, value }. Null fields count as absent, except for content. `weight` (0 or 1), `train`,
 * `training` and `loss` become isTrained.
 * @param place of the list: file, line and field
 */
export function toMessages(value: unknown, place: string): Message[] {
  if (!Array.isArray(value)) throw new Error(`${place} must be a list of { role, content }, got ${brief(value)}`);
  if (value.length === 0) throw new Error(`${place} is an empty list`);
  return value.map((one, i) => toMessage(one, `${place}[${i}]`));
}

function toMessage(value: unknown, place: string): Message {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new Error(`${place} must be { role, content }, got ${brief(value)}`);
  }
  const given = value as Record<string, unknown>;
  const isTrained = switchOf(given, place);
  const isShareGpt = typeof given.role !== 'string' && typeof given.from === 'string';
  const name = isShareGpt ? given.from : given.role;
  if (typeof name !== 'string' || name.trim() === '') {
    throw new Error(`${place}: role ${name === undefined ? 'is missing' : `must be text, got ${brief(name)}`}`);
  }
  const filled = withContent(given, isShareGpt, place);
  const fields = withToolCalls(isShareGpt && isCall(name) ? turnOfCalls(filled, place) : filled, place);
  const isOfFunction = name.trim().toLowerCase() === 'function' && typeof given.name === 'string';
  // In the order of the file, which a template may print.
  const kept = Object.entries(fields).flatMap(([field, value]): [string, unknown][] => {
    if (SWITCHES.has(field)) return [];
    if (isShareGpt && field === 'from') return [['role', roleFrom(String(value))]];
    if (field === 'role') return isShareGpt ? [] : [['role', isOfFunction ? 'tool' : roleOf(name)]];
    return value === null && field !== 'content' ? [] : [[field, value]];
  });
  const message = { ...Object.fromEntries(kept), ...(isTrained === undefined ? {} : { isTrained }) } as Message;
  if (typeof message.tool_calls === 'string' && message.tool_calls.trim() === '') delete message.tool_calls;
  if (typeof message.tool_calls === 'string') message.tool_calls = parsed(message.tool_calls, `${place}: tool_calls`);
  if (message.tool_calls !== undefined && !Array.isArray(message.tool_calls)) {
    throw new Error(`${place}: tool_calls must be a list, got ${brief(message.tool_calls)}`);
  }
  return message;
}

/**
 * Moves the text of { from, value } to content. If there are both value and content, the one that is not empty counts. If a role is given,
 * a value that is no text is an ordinary field.
 */
function withContent(given: Record<string, unknown>, isShareGpt: boolean, place: string): Record<string, unknown> {
  const { value, content } = given;
  const isContent = isShareGpt || typeof value === 'string' || Array.isArray(value);
  if (!isContent) return given;
  const [ofValue, ofContent] = [fillOf(value), fillOf(content)];
  if (ofValue === FILLED && ofContent === FILLED && !isDeepStrictEqual(value, content)) {
    throw new Error(`${place}: value and content say different things: ${brief(value)} and ${brief(content)}`);
  }
  const [taken, left] = ofValue > ofContent ? ['value', 'content'] : ['content', 'value'];
  return Object.fromEntries(
    Object.entries(given)
      .filter(([field]) => field !== left)
      .map(([field, one]) => [field === taken ? 'content' : field, one]),
  );
}

const FILLED = 3;

/** Ranks how much a field says: absent, null, empty, filled. */
function fillOf(value: unknown): number {
  if (value === undefined) return 0;
  if (value === null) return 1;
  return value === '' || (Array.isArray(value) && value.length === 0) ? 2 : FILLED;
}

/** Whether a message is to be trained on; undefined if it does not say so. */
function switchOf(given: Record<string, unknown>, place: string): boolean | undefined {
  if (given.train_detail)
    throw new Error(`${place}: train_detail is not supported; give train or weight for the whole message`);
  let found: { name: string; isTrained: boolean } | undefined;
  for (const name of SWITCHES) {
    const value = given[name] instanceof Float ? given[name].value : given[name];
    if (value === null || value === undefined) continue;
    const isTrained = name === 'weight' ? [false, true][value as number] : value;
    if (typeof isTrained !== 'boolean' || (name === 'weight' && typeof value !== 'number')) {
      const allowed = name === 'weight' ? '0 or 1' : 'true or false';
      throw new Error(`${place}: ${name} must be ${allowed}, got ${brief(given[name])}`);
    }
    if (found && found.isTrained !== isTrained) {
      throw new Error(`${place}: ${found.name} and ${name} say different things: ${found.isTrained} and ${isTrained}`);
    }
    found = { name, isTrained };
  }
  return found?.isTrained;
}
