// What is read from files by their names and beginnings, and what is refused.
import assert from 'node:assert/strict';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import type { Conversation } from '../../../lib/text/records/record.ts';
import { recordsOf, writtenFile } from '../../support/records.ts';

const texts = async (name: string, content: string | Uint8Array) => {
  const records = await recordsOf([writtenFile(name, content)]);
  return records.map((record) => ('text' in record ? record.text : record));
};

const lines = '{"text":"a"}\n\n{"text":"b"}\r\n';

describe('readRecords', () => {
  for (const name of [
    'a.jsonl',
    'a.NDJSON',
    'a.json',
    'a.JSONL',
    'records',
    'a.data',
    'a.log',
    'part-0000',
    'a.txt',
    'a.jsonl.txt',
  ]) {
    it(`reads JSON lines in ${name}`, async () => {
      assert.deepEqual(await texts(name, lines), ['a', 'b']);
      assert.deepEqual(await texts(name, `\ufeff${lines.trim()}`), ['a', 'b'], 'a byte order mark, no last line end');
      assert.deepEqual(await texts(`${name}.gz`, gzipSync(lines)), ['a', 'b']);
      assert.deepEqual(await texts(`${name}.GZ`, gzipSync(lines)), ['a', 'b']);
    });
  }

  it('reads members of gzip one after another', async () => {
    assert.deepEqual(await texts('a.jsonl.gz', Buffer.concat([gzipSync(lines), gzipSync(lines)])), [
      'a',
      'b',
      'a',
      'b',
    ]);
  });

  for (const [what, json] of [
    ['a list', '[{"text":"a"},\n {"text":"b"}]'],
    ['a list with what looks like its end', '[ {"text":"a"} , {"text":"b","x":"]},\\"[{","y":[[],{}]} ]\n'],
    ['a list under a name', '{"version":"1","data":[{"text":"a"},{"text":"b"}]}'],
    ['a list under another name', '{"train": [{"text":"a"},{"text":"b"}], "info": {"a": [1]}}'],
    ['objects over several lines', '{\n "text": "a"\n}\n{\n "text": "b"\n}'],
    ['objects in one line', '{"text":"a"}{"text":"b"}'],
  ]) {
    it(`reads a .json that is ${what}`, async () => {
      assert.deepEqual(await texts('a.json', json!), ['a', 'b']);
      assert.deepEqual(await texts('a.json', `\ufeff${json}`), ['a', 'b']);
    });
  }

  it('reads a list in a file whose name says nothing', async () => {
    assert.deepEqual(await texts('data', '[\n  {"text":"a"}\n]'), ['a']);
  });

  it('reads one object in a .json as one record', async () => {
    const messages = [{ role: 'user', content: 'hi' }];
    assert.deepEqual(await texts('a.json', JSON.stringify({ messages })), [{ messages }]);
  });

  it('keeps numbers as they are written', async () => {
    const [record] = await texts(
      'a.jsonl',
      '{"messages":[{"role":"user","content":"","n":12345678901234567890,"x":2.0}]}',
    );
    const { n, x } = (record as Conversation).messages[0]!;
    assert.deepEqual([n, String(x)], [12345678901234567890n, '2.0']);
  });

  for (const name of ['a.txt', 'a.md', 'README', 'a.py', 'a.tex']) {
    it(`takes ${name} for one text`, async () => {
      const text = '{"a": no JSON}\n[1]\n{"text":"a"}\n';
      assert.deepEqual(await texts(name, text), [text]);
      assert.deepEqual(await texts(name, '[{} \\begin'), ['[{} \\begin']);
    });
  }

  it('takes JSON lines of other fields for text where the name says text, and asks otherwise', async () => {
    const log = '{"level":"info","message":"up"}\n';
    assert.deepEqual(await texts('a.txt', log), [log]);
    await assert.rejects(
      texts('a.log', log),
      /a\.log: begins like JSON lines of \{ level, message \}; name it \.jsonl or \.txt/,
    );
  });

  it('refuses what its name does not say', async () => {
    const pointer = 'version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3\n';
    for (const name of ['a.jsonl', 'a.json', 'a.csv', 'a.txt', 'a.parquet', 'data']) {
      await assert.rejects(texts(name, pointer), new RegExp(`${name}: is a pointer of git-lfs, run {2}git lfs pull`));
      await assert.rejects(
        texts(name, gzipSync(lines)),
        new RegExp(`${name}: is compressed with gzip; end its name with`),
      );
    }
    for (const name of ['a.txt', 'a.md']) {
      for (const bytes of [Buffer.from('hello', 'utf16le'), Buffer.from('hello', 'utf16le').swap16()]) {
        await assert.rejects(texts(name, bytes), new RegExp(`${name}: is binary data or UTF-16 without a mark`));
      }
    }
    assert.deepEqual(await texts('a.txt', 'some text with one\0 in it'), ['some text with one\0 in it']);
    await assert.rejects(texts('a.parquet', ''), /a\.parquet: is empty$/);
  });

  it('keeps a text whole that is longer than its parts, with characters of several bytes across pieces', async () => {
    const text = 'aé東😀'.repeat(700_000);
    assert.deepEqual(await texts('long.txt', text), [text]);
  });

  it('cuts lines at line ends alone, wherever pieces end', async () => {
    const content = 'é東😀"\\\u2028\u2029\u0085\r';
    const record = JSON.stringify({ text: content }); // U+2028 is no line end
    for (const padding of [0, 1, 2, 3, 4, 5]) {
      const filler = JSON.stringify({ text: 'x'.repeat(2 ** 18 - 30 + padding) }); // a piece ends about here
      const read = await texts('a.jsonl', `${filler}\n${record}\n${record}`);
      assert.deepEqual(read.slice(1), [content, content]);
    }
  });

  it('puts a long line together once, however many pieces it has', async () => {
    const text = 'x'.repeat(2 ** 23);
    const path = writtenFile('long.jsonl', JSON.stringify({ text }));
    const { concat } = Buffer;
    let joined = 0;
    Buffer.concat = (list, length) => {
      const whole = concat(list, length);
      joined += whole.length;
      return whole;
    };
    try {
      assert.deepEqual(await recordsOf([path]), [{ text }]);
    } finally {
      Buffer.concat = concat;
    }
    assert.equal(joined, text.length + '{"text":""}'.length);
  });

  it('reads elements of a .json list, wherever pieces end', async () => {
    const text = 'é東😀"\\\\"\\],}\\';
    const record = JSON.stringify({ text });
    for (let padding = 0; padding < 40; padding++) {
      const filler = JSON.stringify({ text: 'x'.repeat(2 ** 18 - 60 + padding) });
      const read = await texts('a.json', `[${filler},${record},${record}]`);
      assert.deepEqual(read.slice(1), [text, text]);
    }
  });

  it('reads what JSON.stringify writes, at any indent', async () => {
    const value = fc.jsonValue({ maxDepth: 3 });
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.string({ unit: 'binary' }), value), { minLength: 1 }),
        fc.nat(3),
        async (rows, indent) => {
          const list = rows.map(([text, other]) => ({ text: Buffer.from(text).toString(), other }));
          const read = await texts('a.json', JSON.stringify(list, null, indent));
          assert.deepEqual(
            read,
            list.map(({ text }) => text),
          );
        },
      ),
      { numRuns: 30 },
    );
  });

  const failures: [string, string | Uint8Array, RegExp][] = [
    [
      'bytes.jsonl',
      Buffer.concat([Buffer.from('{"text":"a"}\n{"text":"caf'), Buffer.of(0xe9), Buffer.from('"}\n')]),
      /bytes\.jsonl:2: is not UTF-8 text$/,
    ],
    ['wide.jsonl', Buffer.from('\ufeff{"text":"a"}', 'utf16le'), /wide\.jsonl:1: is UTF-16, not UTF-8 text$/],
    ['wide.txt', Buffer.from('\ufeffabc', 'utf16le'), /wide\.txt:1: is UTF-16, not UTF-8 text$/],
    [
      'bytes.txt',
      Buffer.concat([Buffer.from('é\n'.repeat(200_000)), Buffer.of(0xc3, 0x28)]),
      /bytes\.txt:200001: is not UTF-8 text$/,
    ],
    ['binary', Buffer.of(1, 0, 2, 0), /binary: is binary data, not text$/],
    [
      'half.jsonl',
      '{"text":"😀\\ud83d\\ude00"}\n{"text":"a\\ud83d"}',
      /half\.jsonl:2: holds half a surrogate pair, \\ud83d/,
    ],
    ['list.jsonl', '[{"text":"a"}]', /list\.jsonl:1: must be an object, got .*\.json$/],
    ['open.json', '[{"text":"a"},', /open\.json\[1\]: is not JSON: the file ends within the list/],
    ['gap.json', '[{"text":"a"},,{"text":"a"}]', /gap\.json\[1\]: is not JSON/],
    ['comma.json', '[{"text":"a"},]', /comma\.json\[1\]: is not JSON/],
    ['after.json', '[{"text":"a"}]\n{"text":"a"}', /after\.json:2: there is something after the list/],
    ['before.json', '{"text":"a"}\n[{"text":"b"}]', /before\.json:2: must be an object/],
    ['mixed.json', '[{"text":"a"},{"text":]', /mixed\.json\[1\]: is not JSON/],
    ['cut.json', '{"text":"a"}\n{"text":', /cut\.json:2: is not JSON/],
    ['quote.json', '["a', /quote\.json\[0\]: is not JSON: the file ends within the list/],
    ['closed.json', '}', /closed\.json:1: is not JSON/],
    ['two.json', '{"train":[{"text":"a"}],"test":[{"text":"b"}]}', /two\.json: has several lists, "train" and "test"/],
    ['columns.json', '{"text":["a","b"]}', /columns\.json:1: text must be text, got \["a","b"\]/],
    ['broken.txt.gz', gzipSync('text').subarray(0, 15), /broken\.txt\.gz: unexpected end of file/],
    ['none.gz', 'no gzip', /none\.gz: incorrect header check/],
    ['a.parquet.gz', '', /a\.parquet\.gz: decompress it/],
  ];
  for (const [name, content, expected] of failures) {
    it(`names what is wrong with ${name}`, async () => {
      await assert.rejects(texts(name, content), expected);
    });
  }

  for (const [name, content] of [
    ['a.jsonl', ''],
    ['a.jsonl', '\n \n'],
    ['a.ndjson.gz', gzipSync('')],
    ['a.json', '[]'],
    ['a.json', ''],
    ['a.csv', 'prompt,completion\r\n'],
    ['a.tsv', ''],
  ] as const) {
    it(`refuses ${name} without records beside others: ${JSON.stringify(name.endsWith('.gz') ? '' : content)}`, async () => {
      const files = [writtenFile('b.jsonl', lines), writtenFile(name, content), writtenFile('c.jsonl', lines)];
      await assert.rejects(recordsOf(files), new RegExp(`/${name.replaceAll('.', '\\.')}: has no records$`));
    });
  }

  for (const name of 'a.yaml b.YML c.json5 d.xml e.html f.arrow g.feather h.bin i.safetensors j.pdf k.docx l.zip m.tar.gz n.jsonl.zst o.bz2 p.xz q.xlsx r.pkl s.png'.split(
    ' ',
  )) {
    it(`refuses ${name} by name, and says what to do`, async () => {
      const expected = new RegExp(`/${name.replaceAll('.', '\\.')}: \\.\\w+ is not supported: \\w`);
      await assert.rejects(texts(name, 'a'), expected);
    });
  }
});
