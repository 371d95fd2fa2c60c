// Function calls in the forms that messages had before tool_calls.
import { brief } from '../../brief.ts';
import { parseJson } from '../json.ts';

type Fields = Record<string, unknown>;

/** Converts a ShareGPT turn whose text is the JSON of one call or of a list of calls. */
export function turnOfCalls({ content, ...rest }: Fields, place: string): Fields {
  const given = typeof content === 'string' ? parsed(content, `${place}: value`) : content;
  const calls = (Array.isArray(given) ? given : [given]).map((call: unknown) => {
    const { name, arguments: named } = (call ?? {}) as Fields;
    if (typeof name !== 'string') {
      throw new Error(`${place}: value must be the JSON of a call, { name, arguments }, got ${brief(call)}`);
    }
    return { type: 'function', function: { name, arguments: named ?? {} } };
  });
  return { ...rest, from: 'assistant', content: '', tool_calls: calls };
}

/** Replaces OpenAI's function_call by tool_calls with one call, in the same place among the fields. */
export function withToolCalls(given: Fields, place: string): Fields {
  const { function_call: text, ...others } = given;
  const call = typeof text === 'string' && text !== '' ? parsed(text, `${place}: function_call`) : text;
  if (isNothing(call)) return others;
  const { name } = (call ?? {}) as Fields;
  if (typeof name !== 'string' || name === '') {
    throw new Error(`${place}: function_call must be { name, arguments }, got ${brief(call)}`);
  }
  const { tool_calls: calls, ...rest } = given;
  if (!isNothing(calls) && !(typeof calls === 'string' && isNothing(parsed(calls, `${place}: tool_calls`)))) {
    throw new Error(`${place}: has function_call and tool_calls, which mean the same; keep one of them`);
  }
  const { arguments: named } = call as Fields;
  const only = [{ type: 'function', function: { ...(call as Fields), arguments: named ?? {} } }];
  return Object.fromEntries(
    Object.entries(rest).map(([field, value]) => (field === 'function_call' ? ['tool_calls', only] : [field, value])),
  );
}

/** Whether a field is absent, or has what tables put in its place: an empty text or list, or an object whose fields are null. */
function isNothing(value: unknown): boolean {
  if (typeof value !== 'object') return value === undefined || value === '';
  return value === null || Object.values(value).every((field) => field === null);
}

export function parsed(text: string, place: string): unknown {
  try {
    return parseJson(text);
  } catch (error) {
    throw new Error(`${place} is not JSON: ${(error as Error).message}`, { cause: error });
  }
}
