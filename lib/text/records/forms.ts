// The forms of records, recognised by their fields.
import { brief } from '../../brief.ts';
import { Float, parseJson } from '../json.ts';
import { alpacaPrompt } from './alpaca.ts';
import { RecordFields } from './fields.ts';
import { toMessages } from './messages.ts';
import type { Conversation, DataRecord, Message } from './record.ts';

const CONVERSATIONS = ['messages', 'conversations', 'conversation'];
const PROMPTS = ['prompt', 'instruction', 'question', 'query', 'input'];
const ANSWERS = ['completion', 'response', 'output', 'answer'];
const SYSTEMS = ['system', 'system_prompt'];
/** Fields with the input of an instruction. */
const INPUTS = ['input', 'context'];
const MEDIA = ['image', 'images', 'video', 'videos', 'audio', 'audios'];
/** A preferred answer and a rejected one. */
const PREFERENCES = [
  ['chosen', 'rejected'],
  ['preferred_output', 'non_preferred_output'],
];

/** All fields that some form uses or refuses. */
export const KNOWN_FIELDS: ReadonlySet<string> = new Set([
  ...[...CONVERSATIONS, ...PROMPTS, ...ANSWERS, ...SYSTEMS, ...INPUTS, ...MEDIA],
  ...['text', 'tools', 'documents', 'chat_template_kwargs', 'functions', 'history', 'label', 'kto_tag'],
  ...PREFERENCES.flat(),
]);

const FORMS =
  '{ text }, { messages }, { conversations }, { prompt, completion }, { instruction, input, output } or the like';

export interface FormOptions {
  /** Whether the tokenizer has a chat template. If so, questions and answers are turns of a conversation. */
  hasChatTemplate: boolean;
}

/**
 * Converts an object of a file to a record, by its fields; null ones count as absent. If several forms fit, a conversation comes before a
 * prompt with its answer, and this before a text; a notice names the fields that are left over. Throws if there are two prompts or two
 * answers.
 * @param value an object as parseJson returns it
 */
export function toRecord(
  value: unknown,
  place: string,
  options: FormOptions,
): { record: DataRecord; notices: string[] } {
  const fields = new RecordFields(value, place);
  for (const name of MEDIA) {
    if (fields.isFilled(name)) throw fields.error(name, 'cannot be trained on: text alone is known');
  }
  const record = conversationOf(fields) ?? pairOf(fields, options) ?? textOf(fields);
  if (!record) throw unknown(fields);
  return { record, notices: fields.notices() };
}

function textOf(fields: RecordFields): DataRecord | null {
  const text = fields.takeText('text');
  return text === undefined ? null : { text };
}

function conversationOf(fields: RecordFields): Conversation | null {
  const found = CONVERSATIONS.filter((name) => fields.has(name));
  const name = theOnly(fields, found);
  if (name === undefined) return null;
  refusePreference(fields, false);
  const messages = toMessages(fields.takeList(name), `${fields.place}: ${name}`);
  // Beside a whole conversation they are left over: some files also have the chosen one under `messages`.
  const pair = messages.at(-1)!.role === 'assistant' ? undefined : preferenceIn(fields);
  if (pair) throw preference(fields, pair);
  return withContext(fields, { messages });
}

/** Adds what stands beside the messages: a system message, tools, documents, variables of the template. */
function withContext(fields: RecordFields, conversation: Conversation): Conversation {
  const { messages, firstTarget } = conversation;
  const tools = toolsOf(fields);
  const documents = fields.takeList('documents');
  const variables = fields.takeObject('chat_template_kwargs');
  const system = systemOf(fields);
  const first = messages[0]!;
  const isNew = system !== undefined && system !== '' && !(first.role === 'system' && first.content === system);
  if (isNew && first.role === 'system') {
    throw new Error(`${fields.place}: system and a message of the role system say different things`);
  }
  const target = firstTarget === undefined ? {} : { firstTarget: firstTarget + (isNew ? 1 : 0) };
  return {
    messages: isNew ? [{ role: 'system', content: system }, ...messages] : messages,
    ...target,
    ...(tools && { tools }),
    ...(documents && { documents }),
    ...(variables && { variables }),
  };
}

function systemOf(fields: RecordFields): string | undefined {
  const name = theOnly(
    fields,
    SYSTEMS.filter((name) => fields.has(name)),
  );
  return name === undefined ? undefined : fields.takeText(name);
}

/** Reads tools; some files have each of them as text. */
function toolsOf(fields: RecordFields): unknown[] | undefined {
  const functions = functionsOf(fields);
  if (functions) {
    theOnly(
      fields,
      ['tools', 'functions'].filter((name) => fields.isFilled(name)),
    );
    return functions;
  }
  return fields.takeList('tools')?.map((tool, i) => {
    if (typeof tool !== 'string') return tool;
    return new RecordFields({ [`tools[${i}]`]: tool }, fields.place).takeObject(`tools[${i}]`);
  });
}

/** Reads OpenAI's older form of tools. Undefined if the field of this name holds something else. */
function functionsOf(fields: RecordFields): unknown[] | undefined {
  const given = fields.peek('functions');
  const list = typeof given === 'string' ? jsonOrNull(given) : given;
  const isNamed = (one: unknown) => typeof (one as { name?: unknown } | null)?.name === 'string';
  if (!Array.isArray(list) || list.length === 0 || !list.every(isNamed)) return undefined;
  fields.take('functions');
  return list.map((called) => ({ type: 'function', function: called }));
}

function jsonOrNull(text: string): unknown {
  try {
    return parseJson(text);
  } catch {
    return null;
  }
}

/** The two fields of a record that hold a preferred and a rejected answer; undefined if it has none. */
const preferenceIn = (fields: RecordFields) => PREFERENCES.find((pair) => pair.every((name) => fields.isFilled(name)));

const preference = ({ place }: RecordFields, pair: readonly string[]) =>
  new Error(`${place}: has ${pair.join(' and ')}: preference records cannot be trained on`);

/** Throws if label says whether an answer is wanted: if it is true or false, also as text, or some other form of these. */
function refusePreference(fields: RecordFields, isOtherForm: boolean): void {
  if (fields.has('kto_tag')) {
    throw fields.error('kto_tag', 'says which answers are wanted: preference records cannot be trained on');
  }
  const label = fields.peek('label');
  if (isOtherForm || typeof label === 'boolean' || (typeof label === 'string' && /^\s*(true|false)\s*$/i.test(label))) {
    throw fields.error('label', 'says which answers are wanted: preference records cannot be trained on');
  }
}

function pairOf(fields: RecordFields, { hasChatTemplate }: FormOptions): DataRecord | null {
  const isAlpaca = fields.has('instruction');
  const prompts = PROMPTS.filter((name) => fields.has(name) && !(isAlpaca && name === 'input'));
  const answers = ANSWERS.filter((name) => fields.has(name));
  if (prompts.length === 0 || answers.length === 0) return null;
  const [promptName, answerName] = [theOnly(fields, prompts)!, theOnly(fields, answers)!];
  const label = fields.peek('label');
  const number = label instanceof Float ? label.value : label;
  refusePreference(fields, number === 0 || number === 1 || label === '0' || label === '1');
  const prompt = textOrMessages(fields, promptName);
  const answer = textOrMessages(fields, answerName);
  const history = historyOf(fields);
  const input = isAlpaca ? inputOf(fields) : '';
  const isPlain = promptName === 'prompt' && answerName === 'completion';
  const hasContext = [...SYSTEMS, 'tools', 'documents', 'chat_template_kwargs'].some((name) => fields.isFilled(name));
  const isTurns = typeof prompt !== 'string' || typeof answer !== 'string' || history.length > 0 || hasContext;
  if (!isTurns && (isPlain || !hasChatTemplate)) {
    return { prompt: isAlpaca ? alpacaPrompt(prompt, input) : prompt, completion: answer };
  }
  const question =
    typeof prompt === 'string'
      ? [{ role: 'user', content: [prompt, input].filter((part) => part !== '').join('\n') }]
      : prompt;
  const reply = typeof answer === 'string' ? [{ role: 'assistant', content: answer }] : answer;
  const isAllTrained = history.length > 0; // earlier answers are trained on as well
  return withContext(fields, {
    messages: [...history, ...question, ...reply],
    ...(isAllTrained ? {} : { firstTarget: question.length }),
  });
}

function textOrMessages(fields: RecordFields, name: string): string | Message[] {
  const value = fields.take(name);
  if (typeof value === 'string') return value;
  if (Array.isArray(value)) return toMessages(value, `${fields.place}: ${name}`);
  throw fields.error(name, `must be text or a list of messages, got ${brief(value)}`);
}

function inputOf(fields: RecordFields): string {
  const name = theOnly(
    fields,
    INPUTS.filter((name) => fields.isFilled(name)),
  );
  return name === undefined ? '' : (fields.takeText(name) ?? '');
}

/** Reads earlier turns: a list of [question, answer]. */
function historyOf(fields: RecordFields): Message[] {
  return (fields.takeList('history') ?? []).flatMap((pair, i) => {
    const [question, answer] = Array.isArray(pair) && pair.length === 2 ? (pair as unknown[]) : [];
    if (typeof question !== 'string' || typeof answer !== 'string') {
      throw fields.error(`history[${i}]`, `must be [question, answer], got ${brief(pair)}`);
    }
    return [
      { role: 'user', content: question },
      { role: 'assistant', content: answer },
    ];
  });
}

/** The name of the only field that is present; undefined if none is. Throws if there are several. */
function theOnly(fields: RecordFields, names: readonly string[]): string | undefined {
  if (names.length < 2) return names[0];
  throw new Error(`${fields.place}: has ${names.join(' and ')}, which mean the same; keep one of them`);
}

function unknown(fields: RecordFields): Error {
  const pair = preferenceIn(fields);
  if (pair) return preference(fields, pair);
  const prompt = PROMPTS.find((name) => fields.has(name));
  const answer = ANSWERS.find((name) => fields.has(name));
  const partner = prompt ? ANSWERS : answer ? PROMPTS : [];
  const named = partner.find((name) => fields.names.includes(name));
  if (named) return fields.missing(named);
  const names = fields.names.filter((name) => fields.has(name)).slice(0, 20);
  return new Error(`${fields.place}: must have ${FORMS}, got ${brief(names.join(', ')).slice(1, -1) || 'no field'}`);
}
