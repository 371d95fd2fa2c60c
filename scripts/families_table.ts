// The table of families in docs/families.md: what the code reads, and what tests compare of each.
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { families } from '../lib/models/families/registry.ts';
import { sources, used } from '../test/support/families.ts';

const fixtures = join(import.meta.dirname, '../test/fixtures');

/** model_type of a folder's config.json. */
const typeOf = (folder: string) => JSON.parse(readFileSync(join(fixtures, folder, 'config.json'), 'utf8')).model_type;

export function familiesTable(): string {
  const cases = [...readdirSync(join(fixtures, 'parity')).map((name) => `parity/${name}`), 'gemma4'];
  const types = new Map(cases.map((folder) => [folder, typeOf(folder) as string]));
  const rows = [...families.values()].map(({ type, architecture, texts }) => {
    const own = cases.filter((folder) => types.get(folder) === type);
    const variants = Object.values(sources).filter(({ model_type }) => model_type === type).length;
    const isUsed = own.some((folder) => used.some((name) => folder === join('parity', name)));
    const checked = texts
      ? [`its text part is one of ${texts.map((text) => text.type).join(', ')}; other weights byte for byte`, '', '']
      : [own.map((folder) => folder.replace('parity/', '')).join(', '), `${variants || ''}`, isUsed ? 'yes' : ''];
    return [type, architecture, ...checked];
  });
  const head = ['`model_type`', 'class', "cases of PyTorch's", 'variants in f64', 'whole use'];
  return [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}
