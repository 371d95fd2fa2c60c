// Parquet: every kind of value as the same record in JSON has it, and files that are damaged.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { formatJson } from '../../../lib/text/json.ts';
import { recordsOf, writtenFile } from '../../support/records.ts';

const fixture = (name: string) => fileURLToPath(new URL(`../../fixtures/data/${name}`, import.meta.url));

describe('parquet', () => {
  it('gives values as JSON has them: long integers, floats, times, bytes, maps; null fields of structs are absent', async () => {
    const records = await recordsOf([fixture('values.parquet')]); // written by make_parquet.py
    const messages = [
      '{"role":"user","content":"zwölf 😀","turn":1234567890123456789,"small":-7,"unsigned":18446744073709551615,"half":2.0,',
      '"at":"2024-02-29T12:30:01.123456Z","exact":"1970-01-01T00:00:00.000000001Z","day":"1969-12-31","raw":"é","isDone":false,',
      '"tags":["a",null,""],"scores":{"x":0.5,"y":3.0}},{"role":"assistant","content":null,"tool_calls":[',
      '{"name":"ban","arguments":{"user":5,"share":2.0}},{"name":"weather","arguments":{"city":"Bonn"}}]}',
    ];
    assert.deepEqual(
      records.map((record) => formatJson(record)),
      [`{"messages":[${messages.join('')}]}`, '{"text":"plain"}'],
    );
  });

  for (const [name, expected] of [
    [
      'decimal.parquet',
      /decimal\.parquet: column messages\.list\.element\.n is of type DECIMAL, which is not supported/,
    ],
    ['bytes.parquet', /bytes\.parquet: holds bytes that are not UTF-8 text$/],
    ['other.parquet', /other\.parquet, row 0: must have \{ text \}, .* got txet$/],
  ] as const) {
    it(`refuses what it cannot give: ${name}`, async () => {
      await assert.rejects(recordsOf([fixture(name)]), expected);
    });
  }

  /** text.parquet with another byte at a place. */
  const damaged = (at: number, byte: number) =>
    writtenFile(
      'damaged.parquet',
      readFileSync(fixture('text.parquet')).map((old, i) => (i === at ? byte : old)),
    );

  it('ends where a damaged file hangs its reader', async () => {
    await assert.rejects(
      recordsOf([damaged(20, 240)]),
      /damaged\.parquet: is damaged: reading it has made no progress for \d s$/,
    );
  });

  it('names a file that is cut short or none', async () => {
    const whole = readFileSync(fixture('values.parquet'));
    for (const content of [
      whole.subarray(0, whole.length / 2),
      whole.subarray(0, 3),
      Buffer.alloc(0),
      Buffer.from('PAR1 and no more PAR1'),
    ]) {
      await assert.rejects(recordsOf([writtenFile('cut.parquet', content)]), /cut\.parquet: \w/);
    }
  });
});
