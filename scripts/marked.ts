// Parts of Markdown files that scripts write, between marks that readers do not see.

const begin = (name: string) => `<!-- made: ${name} -->`;
const END = '<!-- end -->';

function placeOf(text: string, name: string, file: string): [from: number, to: number] {
  const from = text.indexOf(begin(name));
  const to = text.indexOf(END, from);
  if (from < 0 || to < 0) throw new Error(`${file}: has no ${begin(name)} before ${END}`);
  return [from + begin(name).length, to];
}

/** What stands between the marks of a name. */
export function between(text: string, name: string, file: string): string {
  return text.slice(...placeOf(text, name, file)).trim();
}

export function replaceBetween(text: string, name: string, content: string, file: string): string {
  const [from, to] = placeOf(text, name, file);
  return `${text.slice(0, from)}\n\n${content}\n\n${text.slice(to)}`;
}
