// A chat template as one text, with the variables that a run sets as defaults in it: what is saved beside a model, so that whoever renders
// with it later (generate, transformers, vLLM) renders what was trained on, and may still set them otherwise.

/** Names that transformers and jinja2 define whatever the caller sets; a default for one of them would never count. */
const DEFINED =
  /_token$|^(additional_special_tokens|range|dict|lipsum|cycler|joiner|namespace|raise_exception|strftime_now)$/;
/** What transformers gives as None where a conversation has none. */
const NULL = /^(tools|documents)$/;
/** Words that a template cannot read as names of variables. */
const WORDS = new Set(
  'true false none True False None and or not in is if else elif for set self super loop caller varargs kwargs'.split(
    ' ',
  ),
);

/** Whether a template can read a variable of this name. */
export const isVariableName = (name: string) => /^[A-Za-z_][A-Za-z0-9_]*$/.test(name) && !WORDS.has(name);

/** A JSON value as Jinja writes it. */
export function literal(value: unknown): string {
  if (value === null) return 'none';
  if (Array.isArray(value)) return `[${value.map(literal).join(', ')}]`;
  if (typeof value === 'object') {
    return `{${Object.entries(value)
      .map(([key, one]) => `${literal(key)}: ${literal(one)}`)
      .join(', ')}}`;
  }
  if (typeof value === 'string' || typeof value === 'boolean') return JSON.stringify(value);
  if (typeof value === 'number' && Number.isFinite(value)) return String(value);
  throw new TypeError(`template variable: ${String(value)} cannot be written as JSON`);
}

/**
 * @param toolTemplate of conversations with tools, where there is one of its own for them
 * @param variables by names that `isVariableName` allows
 */
export function savedTemplate(
  template: string,
  toolTemplate: string | null,
  variables: Readonly<Record<string, unknown>>,
): string {
  const defaults = (names: string[]) => names.map((name) => defaultOf(name, literal(variables[name]))).join('');
  const names = Object.keys(variables);
  const always = defaults(names.filter((name) => name !== 'tools'));
  const tools = defaults(names.filter((name) => name === 'tools')); // they choose no template
  // The line end after a block is taken away (trim_blocks), so that one of the template's own stays.
  const begun = (text: string, template: string) => (text === '' ? template : `${text}\n${template}`);
  if (toolTemplate === null) return begun(always + tools, template);
  const choice = `${always}{% if tools is defined and tools is not none %}`;
  return `${choice}\n${within(toolTemplate)}{% else %}\n${begun(tools, within(template))}{% endif %}`;
}

function defaultOf(name: string, value: string): string {
  const set = `{% set ${name} = ${value} %}`;
  if (DEFINED.test(name)) return set;
  return `{% if ${name} is not defined${NULL.test(name) ? ` or ${name} is none` : ''} %}${set}{% endif %}`;
}

/** A template before a block: without the line end that ends files, and with its last spaces kept from lstrip_blocks. */
const within = (template: string) => `${template.replace(/(\r\n|\r|\n)$/, '')}{{ '' }}`;
