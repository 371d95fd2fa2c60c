// In which forms a template reads messages, found by rendering small ones: what it does not read would vanish, or become a list in the text.
import { TemplateBudgetError } from './jinja/errors.ts';
import { formatJson, parseJson } from './json.ts';
import { partsOf, textOf } from './messages.ts';
import { PROBE_TOOLS } from './probe_tools.ts';
import type { Conversation, Message } from './records/record.ts';

export interface TemplateForms {
  /** By role, how content may be: as text, as a list of one part, as a list of any number of parts. */
  content: Map<string, { text: boolean; onePart: boolean; parts: boolean }>;
  /** Whether the arguments of tool calls must be JSON texts. */
  areArgumentsText: boolean;
  /** Whether content that is null beside tool calls would be written as a word. */
  isNullWritten: boolean;
}

const ROLES = ['system', 'user', 'assistant', 'tool'];
const [FIRST, SECOND] = ['Qxfirst', 'Qxsecond'];

/** What forms are found by; see ChatTemplate. */
interface Renderer {
  rendered(conversation: Conversation): Promise<{ text: string }>;
}

/** @param hasTools whether of conversations with tools, for which there may be another template, or a branch of its own */
export async function findForms(given: Renderer, hasTools: boolean): Promise<TemplateForms> {
  const template: Renderer = {
    rendered: ({ messages }) => given.rendered({ messages, ...(hasTools && { tools: PROBE_TOOLS }) }),
  };
  const content: TemplateForms['content'] = new Map();
  for (const role of ROLES) {
    const text = await rendered(template, role, { content: FIRST });
    const onePart = await rendered(template, role, { content: [part(FIRST)] });
    const parts = await rendered(template, role, { content: [part(FIRST), part(SECOND)] });
    content.set(role, {
      text: text.some((one) => one.includes(FIRST)),
      onePart: onePart.some((one) => showsParts(one, FIRST)),
      parts: parts.some((one) => showsParts(one, FIRST) && showsParts(one, SECOND)),
    });
  }
  const calling = async (parameters: unknown, contents: object[]) => {
    const renderings: string[] = [];
    for (const one of contents)
      renderings.push(...(await rendered(template, 'assistant', { ...one, ...call(parameters) })));
    return renderings;
  };
  const json = `{"Qxkey": "${FIRST}"}`;
  const [EMPTY, NULL, ABSENT] = [{ content: '' }, { content: null }, {}];
  const said = [...(await calling({ Qxkey: FIRST }, [EMPTY])), ...(await calling(json, [EMPTY]))];
  // Some templates write calls only where content is null.
  const asObject = await calling({ Qxkey: FIRST }, [EMPTY, NULL, ABSENT]);
  const asText = await calling(json, [EMPTY, NULL, ABSENT]);
  const nothing = [...(await calling({ Qxkey: FIRST }, [NULL])), ...(await calling(json, [NULL]))];
  const isRead = (one: string) => one.includes(FIRST) && !one.includes(`'${FIRST}'`);
  return {
    content,
    areArgumentsText: !asObject.some(isRead) && asText.some((one) => one.includes(json)),
    isNullWritten: said.length > 0 && !nothing.some((one) => said.includes(one) || !/None|null/.test(one)),
  };
}

const part = (text: string) => ({ type: 'text', text });
const call = (parameters: unknown): Partial<Message> => ({
  tool_calls: [{ id: 'callQx001', type: 'function', function: { name: 'Qxname', arguments: parameters } }],
});

/** What the template makes of small conversations with this message; of those that it does not refuse. */
async function rendered(template: Renderer, role: string, fields: Partial<Message>): Promise<string[]> {
  const texts: string[] = [];
  for (const form of [(text: string) => text, (text: string) => [part(text)]]) {
    try {
      texts.push((await template.rendered({ messages: around({ role, ...fields }, form) })).text);
    } catch (error) {
      if (error instanceof TemplateBudgetError) throw error;
      // Refused: the form of the other messages, or of this one, is not what the template reads.
    }
  }
  return texts;
}

/** A small conversation with this message, and others with contents of this form. */
function around(message: Message, form: (text: string) => unknown): Message[] {
  const user: Message = { role: 'user', content: form('q') };
  if (message.role === 'system') return [message, user];
  if (message.role === 'user') return [message];
  if (message.role === 'assistant') return [user, message];
  const calling: Message = { role: 'assistant', content: form(''), ...call({ Qxkey: 'x' }) };
  return [user, calling, { tool_call_id: 'callQx001', name: 'Qxname', ...message }];
}

const showsParts = (rendering: string, text: string) =>
  rendering.includes(text) && !/['"]type['"]: *['"]text['"]/.test(rendering);

/** A message as the template reads it. */
export function inForm(message: Message, forms: TemplateForms): Message {
  const { tool_calls: calls } = message;
  const changed: Message = { ...message, content: contentInForm(message, forms) };
  if (message.content === undefined) delete changed.content;
  if (Array.isArray(calls)) changed.tool_calls = calls.map((one) => withArguments(one, forms.areArgumentsText));
  return changed;
}

function contentInForm({ role, content }: Message, forms: TemplateForms): unknown {
  if (content === null && forms.isNullWritten) return '';
  if (typeof content !== 'string' && !Array.isArray(content)) return content;
  const { text, onePart, parts } = forms.content.get(role) ?? forms.content.get('user')!;
  if (Array.isArray(content) && parts) return partsOf(content);
  return text || !onePart ? textOf(content) : [part(textOf(content))];
}

/** A tool call, nested in `function` or not, with its arguments as a JSON text or as what that says. */
function withArguments(call: unknown, isText: boolean): unknown {
  if (typeof call !== 'object' || call === null) return call;
  const { function: called, arguments: given } = call as Record<string, unknown>;
  if (called !== undefined) return { ...call, function: withArguments(called, isText) };
  if (isText && typeof given === 'object' && given !== null) return { ...call, arguments: jsonText(given) };
  if (!isText && typeof given === 'string') return { ...call, arguments: parsed(given) };
  return call;
}

/** As Python's json.dumps writes it, which templates and models know. */
const jsonText = (value: object) => formatJson(value, { itemSeparator: ', ', keySeparator: ': ' });

function parsed(text: string): unknown {
  try {
    const value = parseJson(text);
    return typeof value === 'object' && value !== null ? value : text;
  } catch {
    return text;
  }
}
