// The list of options that --help prints and docs/configuration.md has.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { parseConfig } from '../../lib/index.ts';
import { formatOptions, listOptions } from '../../lib/train/options.ts';
import { tinyRun } from '../support/runs.ts';

describe('options', () => {
  it('have a description, and the default that a run gets', () => {
    const { model, data, sequenceLength } = tinyRun();
    const config = parseConfig({ model, data, sequenceLength, lora: { rank: 1 } });
    for (const { key, default: value, description } of listOptions()) {
      assert.ok(description, `${key} has no description`);
      if (value === null) continue;
      const actual = key.split('.').reduce<unknown>((at, name) => (at as Record<string, unknown>)[name], config);
      assert.equal(String(actual), value, key);
    }
  });

  it('stand in docs/configuration.md, each with type, default and meaning', () => {
    const text = readFileSync('docs/configuration.md', 'utf8');
    const table = listOptions().map(
      ({ key, type, default: value, description }) =>
        `| \`${key}\` | ${type} | ${value === null ? '' : `\`${value}\``} | ${description} |\n`,
    );
    assert.ok(text.includes(table.join('')), `the table should be\n${table.join('')}`);
  });

  it('are listed one a line', () => {
    assert.equal(formatOptions().split('\n').length, listOptions().length);
    assert.match(formatOptions(), /^ {2}optimizer\.beta2 +decay of .* \(number; default 0\.95\)$/m);
  });
});
