// The package's name and version, for `--version`, doctor and the facts of a run.
import { readFileSync } from 'node:fs';

/** From package.json. */
export function packageInfo(): { version: string; description: string } {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8');
  return JSON.parse(text) as { version: string; description: string };
}
