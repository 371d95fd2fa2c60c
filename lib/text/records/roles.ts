// Converts the names of roles to those that chat templates use.

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

/** Names under `from` for the result of a tool. */
const OF_TOOLS = new Set(['tool', 'observation', 'function_response', 'function-response', 'tool_response']);

/** The name that templates use, whatever its case; an unknown name stays as it is. */
export function roleOf(name: string): string {
  return KNOWN[name.trim().toLowerCase()] ?? name;
}

/** The role of a turn under `from`. */
export function roleFrom(name: string): string {
  return OF_TOOLS.has(name.trim().toLowerCase()) ? 'tool' : roleOf(name);
}

/** Whether a name under `from` says that the turn's text is a tool call. */
export const isCall = (name: string) => /^(function|tool)[_-]calls?$/i.test(name.trim());
