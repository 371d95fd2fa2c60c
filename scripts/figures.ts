// npm run figures: what README and docs/benchmarks.md show of benchmarks/results/, docs/longest.svg from the table of the longest
// sequences there, and the table of families. `--check` writes nothing and fails where something differs.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { argv } from 'node:process';
import { peerTable, resultTables } from './benchmark_tables.ts';
import { familiesTable } from './families_table.ts';
import { chart, parseTable } from './longest_chart.ts';
import { between, replaceBetween } from './marked.ts';

const root = join(import.meta.dirname, '..');
const read = (name: string) => readFileSync(join(root, name), 'utf8');

/** Files as they should be, by name. */
export function made(): Record<string, string> {
  const benchmarks = replaceBetween(read('docs/benchmarks.md'), 'results', resultTables(), 'docs/benchmarks.md');
  return {
    'docs/benchmarks.md': benchmarks,
    'docs/longest.svg': chart(parseTable(between(benchmarks, 'longest', 'docs/benchmarks.md'))),
    'docs/families.md': replaceBetween(read('docs/families.md'), 'families', familiesTable(), 'docs/families.md'),
    'README.md': replaceBetween(read('README.md'), 'peers', peerTable(), 'README.md'),
  };
}

/** Names of those that differ from what is on the disk. */
export const differing = () => Object.entries(made()).flatMap(([name, text]) => (read(name) === text ? [] : [name]));

if (import.meta.filename === argv[1]) {
  if (argv.includes('--check')) {
    const names = differing();
    if (names.length > 0) throw new Error(`${names.join(', ')}: made from other figures: npm run figures`);
  } else {
    for (const [name, text] of Object.entries(made())) writeFileSync(join(root, name), text);
  }
}
