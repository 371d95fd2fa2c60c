// Messages as files have them to messages as templates expect them.
import { brief } from '../../brief.ts';
import { Float, parseJson } from '../json.ts';
import type { Message } from './record.ts';
import { isCall, roleFrom, roleOf } from './roles.ts';

/** Fields by which a message says whether it is trained on. */
const SWITCHES: ReadonlySet<string> = new Set(['weight', 'train', 'training', 'loss']);

/**
 * A list of { role, content } or of { from, value }. Fields that are null are absent, but for content; `weight` (0 or 1), `train`,
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
  const fields = isShareGpt && isCall(name) ? callFields(given, place) : given;
  // In the order of the file, which a template may print.
  const kept = Object.entries(fields).flatMap(([field, value]): [string, unknown][] => {
    if (SWITCHES.has(field)) return [];
    if (isShareGpt && field === 'from') return [['role', roleFrom(String(value))]];
    if (isShareGpt && field === 'value') return [['content', value]];
    if (field === 'role') return isShareGpt ? [] : [['role', roleOf(name)]];
    return value === null && field !== 'content' ? [] : [[field, value]];
  });
  const message = { ...Object.fromEntries(kept), ...(isTrained === undefined ? {} : { isTrained }) } as Message;
  if (typeof message.tool_calls === 'string') message.tool_calls = parsed(message.tool_calls, `${place}: tool_calls`);
  if (message.tool_calls !== undefined && !Array.isArray(message.tool_calls)) {
    throw new Error(`${place}: tool_calls must be a list, got ${brief(message.tool_calls)}`);
  }
  return message;
}

/** Whether a message is trained on; undefined: it does not say so. */
function switchOf(given: Record<string, unknown>, place: string): boolean | undefined {
  if (given.train_detail)
    throw new Error(`${place}: train_detail is not known; give train or weight for the whole message`);
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

/** A turn whose value is the JSON of one call or of a list of them. */
function callFields({ value, ...rest }: Record<string, unknown>, place: string): Record<string, unknown> {
  const given = typeof value === 'string' ? parsed(value, `${place}: value`) : value;
  const tool_calls = (Array.isArray(given) ? given : [given]).map((call: unknown) => {
    const { name, arguments: named } = (call ?? {}) as Record<string, unknown>;
    if (typeof name !== 'string') {
      throw new Error(`${place}: value must be the JSON of a call, { name, arguments }, got ${brief(call)}`);
    }
    return { type: 'function', function: { name, arguments: named ?? {} } };
  });
  return { ...rest, from: 'assistant', content: '', tool_calls };
}

function parsed(text: string, place: string): unknown {
  try {
    return parseJson(text);
  } catch (error) {
    throw new Error(`${place} is not JSON: ${(error as Error).message}`, { cause: error });
  }
}
