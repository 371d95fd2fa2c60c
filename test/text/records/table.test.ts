// CSV and TSV, as RFC 4180 has them.
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { recordsOf, writtenFile } from '../../support/records.ts';

const pairsOf = async (content: string, name = 'a.csv') =>
  (await recordsOf([writtenFile(name, content)])).map((record) => {
    assert.ok('prompt' in record);
    return [record.prompt, record.completion];
  });

describe('tables', () => {
  it('reads quotes, separators and line ends within them, byte order marks, CRLF', async () => {
    const content = '\ufeffprompt,id,completion\r\na,1,b\r\n"a, ""b""\r\nc",,"\n"\r\n\r\n5" disk,2,it\'s\r\n"", ,""';
    assert.deepEqual(await pairsOf(content), [
      ['a', 'b'],
      ['a, "b"\r\nc', '\n'],
      ['5" disk', "it's"],
      ['', ''],
    ]);
    assert.deepEqual(await pairsOf('completion\tprompt\na,b\t"c\td"\n', 'a.tsv'), [['c\td', 'a,b']]);
  });

  it('reads what a writer of RFC 4180 writes', async () => {
    const cell = fc.string({ unit: fc.constantFrom('a', 'é', '😀', '"', ',', '\n', '\r', '\r\n', ' ', '\t', ';') });
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(cell, cell), { minLength: 1 }),
        fc.constantFrom('\n', '\r\n'),
        async (rows, end) => {
          const quoted = (text: string) => `"${text.replaceAll('"', '""')}"`;
          const written = [['prompt', 'completion'], ...rows].map((row) => row.map(quoted).join(',')).join(end);
          assert.deepEqual(await pairsOf(written), rows);
          assert.deepEqual(await pairsOf(written + end), rows);
        },
      ),
      { numRuns: 60 },
    );
  });

  it('takes an empty cell for absent, and "" for an empty text', async () => {
    const content = 'text,prompt,completion\na,,\n,q,""\n';
    assert.deepEqual(await recordsOf([writtenFile('a.csv', content)]), [
      { text: 'a' },
      { prompt: 'q', completion: '' },
    ]);
    await assert.rejects(pairsOf('prompt,completion\nq,\n'), /a\.csv:2: completion is null$/);
  });

  it('reads conversations that are JSON in a cell', async () => {
    const messages = [{ role: 'user', content: 'hi' }];
    const content = `messages\n"${JSON.stringify(messages).replaceAll('"', '""')}"\n`;
    assert.deepEqual(await recordsOf([writtenFile('a.csv', content)]), [{ messages }]);
  });

  for (const [what, content, expected] of [
    [
      'a row with more cells',
      'prompt,completion\na,b\n"c\nd",e,f\n',
      /a\.csv:3: has 3 cells where the first row has 2$/,
    ],
    ['a row with fewer cells', 'prompt,completion\na\n', /a\.csv:2: has 1 cells where the first row has 2$/],
    ['an open quote', 'prompt,completion\na,"b\n\n', /a\.csv:2: a quote is not closed$/],
    ['text after a quote', 'prompt,completion\n"a"b,c\n', /a\.csv:2: cell 1 continues after its closing quote$/],
    ['line ends of \\r', 'prompt,completion\ra,b\rc,d\r', /a\.csv:1: has \\r without \\n outside quotes/],
    ['line ends of \\r and one column', 'text\ra\r', /a\.csv:1: has \\r without \\n outside quotes/],
    ['line ends of \\r after quotes', '"text"\r"a"\r', /a\.csv:1: has \\r without \\n outside quotes/],
    ['line ends of \\r in a part', 'text\na\rb\n', /a\.csv:2: has \\r without \\n outside quotes/],
    ['two columns of one name', 'text,text\na,b\n', /a\.csv:1: has two columns named "text"$/],
    ['another separator', 'prompt;completion\na;b\n', /a\.csv:1: has one column; .* separated by ";"$/],
    ['no column that is known', 'a,b\n1,2\n', /a\.csv:2: must have .* got a, b$/],
    ['a conversation that is no JSON', 'messages\nhi\n', /a\.csv:2: messages is text that is not JSON/],
  ] as const) {
    it(`names the line: ${what}`, async () => {
      await assert.rejects(pairsOf(content), expected);
    });
  }
});
