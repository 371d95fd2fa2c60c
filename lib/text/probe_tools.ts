// What templates are tried with where a conversation has tools.
import type { Conversation } from './records/record.ts';

const described = { name: 'Qxtool', description: 'Qxabout', parameters: { type: 'object', properties: {} } };

/** Tools as templates read them: described within `function`, or at the top. */
export const PROBE_TOOLS = [{ type: 'function', function: described, ...described }];

/** Whether a template is given tools, by which it may choose another way to write. */
export const hasTools = ({ tools }: Pick<Conversation, 'tools'>): boolean => Boolean(tools);
