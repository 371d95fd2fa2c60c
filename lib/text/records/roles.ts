// Names of roles, and what chat templates call them.

const KNOWN: Record<string, string> = {
  user: 'user',
  human: 'user',
  prompter: 'user',
  assistant: 'assistant',
  gpt: 'assistant',
  chatgpt: 'assistant',
  'gpt-4': 'assistant',
  model: 'assistant',
  bot: 'assistant',
  ai: 'assistant',
  bing: 'assistant',
  bard: 'assistant',
  system: 'system',
};

/** Further names under `from`: of what a tool gives back. */
const OF_TOOLS = new Set(['tool', 'observation', 'function_response', 'function-response', 'tool_response']);

/** As templates know it, whatever the case; a name that is not known stays. */
export function roleOf(name: string): string {
  return KNOWN[name.trim().toLowerCase()] ?? name;
}

/** The role of a turn under `from`. */
export function roleFrom(name: string): string {
  return OF_TOOLS.has(name.trim().toLowerCase()) ? 'tool' : roleOf(name);
}

/** Under `from`: a turn whose text is a call of a tool. */
export const isCall = (name: string) => /^(function|tool)[_-]calls?$/i.test(name.trim());
