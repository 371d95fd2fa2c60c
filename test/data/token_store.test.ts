// Files to stored tokens: forms, masks, compression, errors with their place.
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { TokenStore } from '../../lib/data/token_store.ts';
import { ChatTemplate } from '../../lib/text/chat_template.ts';
import { idOf } from '../../lib/text/encode.ts';
import { loadTokenizer, type Tokenizer } from '../../lib/text/tokenizer.ts';

const fixture = new URL('../fixtures/tokenizer/tokenizer.json', import.meta.url).pathname;

let folder: string;
let bytes: Tokenizer;
let bpe: Tokenizer;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'store-'));
  bytes = { ...(await loadTokenizer('bytes')), vocabSize: 258, beginOfText: [256], endOfText: 257 };
  bpe = await loadTokenizer(fixture);
});
after(() => rm(folder, { recursive: true }));

async function fileOf(name: string, content: string | Uint8Array): Promise<string> {
  const path = join(folder, name);
  await writeFile(path, content);
  return path;
}

const lines = (...records: object[]) => records.map((record) => `${JSON.stringify(record)}\n`).join('');

/** Each document's marked ids. */
async function documentsOf(files: string[], tokenizer: Tokenizer, options: object = {}): Promise<number[][]> {
  const cacheDir = await mkdtemp(join(folder, 'cache-'));
  const store = await TokenStore.open(files, tokenizer, { cacheDir, V: tokenizer.vocabSize, ...options });
  try {
    const documents: number[][] = [];
    for (let i = 0; i < store.numDocuments; i++) {
      documents.push([...(await store.read(store.offsets[i]!, store.offsets[i + 1]!))]);
    }
    return documents;
  } finally {
    await store.close();
  }
}

const codes = (text: string) => [...new TextEncoder().encode(text)];
const masked = (ids: number[]) => ids.map((id) => -1 - id);

describe('TokenStore', () => {
  it('holds text files, each a document with its beginning and end', async () => {
    const files = [await fileOf('a.txt', 'ab'), await fileOf('b.md', '\ufeffé')];
    assert.deepEqual(await documentsOf(files, bytes), [
      [256, 97, 98, 257],
      [256, 0xc3, 0xa9, 257],
    ]);
  });

  it('recognises the forms of records', async () => {
    const conversation = [
      { role: 'user', content: 'hi' },
      { role: 'assistant', content: 'yo' },
    ];
    const content = lines(
      { text: 'ab' },
      { prompt: 'p', completion: 'c' },
      { prompt: [conversation[0]], completion: [conversation[1]] },
    );
    const tokenizer = {
      ...bytes,
      chatTemplate: new ChatTemplate(
        '{% for m in messages %}[{{ m.role[0] }}]{{ m.content }};{% endfor %}{% if add_generation_prompt %}[a]{% endif %}',
      ),
    };
    const expected = [
      [256, 97, 98, 257],
      [...masked([256, 112]), 99, 257],
      [...masked(codes('[u]hi;[a]')), ...codes('yo;')],
    ];
    assert.deepEqual(await documentsOf([await fileOf('forms.jsonl', content)], tokenizer), expected);
    const list = `[${content.trim().split('\n').join(',')}]`;
    assert.deepEqual(await documentsOf([await fileOf('forms.json', list)], tokenizer), expected);
    assert.deepEqual(await documentsOf([await fileOf('forms.jsonl.gz', gzipSync(content))], tokenizer), expected);
    const unmasked = expected.map((ids) => ids.map(idOf));
    assert.deepEqual(
      await documentsOf([await fileOf('forms.jsonl', content)], tokenizer, { trainOnPrompts: true }),
      unmasked,
    );
  });

  it("trains on the assistant's turns of the model's chat template", async () => {
    const messages = [
      { role: 'user', content: 'What is 2+2?' },
      { role: 'assistant', content: 'Four.' },
      { role: 'user', content: 'And 3+3?' },
      { role: 'assistant', content: 'Six.' },
    ];
    const [ids] = await documentsOf([await fileOf('chat.jsonl', lines({ messages }))], bpe);
    const whole = '<|user|>What is 2+2?<|end|><|assistant|>Four.<|end|><|user|>And 3+3?<|end|><|assistant|>Six.<|end|>';
    assert.deepEqual(ids!.map(idOf), [...(await bpe.encode(whole))]);
    const trained: number[][] = [[]];
    for (const id of ids!) id < 0 ? trained.at(-1)!.length && trained.push([]) : trained.at(-1)!.push(id);
    assert.deepEqual(trained, [[...(await bpe.encode('Four.<|end|>'))], [...(await bpe.encode('Six.<|end|>'))]]);
  });

  it('refuses a conversation without a template', async () => {
    const messages = [
      { role: 'user', content: 'a' },
      { role: 'assistant', content: 'b' },
    ];
    const path = await fileOf('conversation.jsonl', lines({ messages }));
    await assert.rejects(documentsOf([path], bytes), /conversation\.jsonl:1: conversations need a chat template/);
  });

  it('reads parquet', async () => {
    const path = new URL('../fixtures/data/text.parquet', import.meta.url).pathname;
    assert.deepEqual(await documentsOf([path], bytes), [
      [256, ...codes('first'), 257],
      [256, ...codes('zwölf'), 257],
    ]);
  });

  it('cuts long texts without changing a token', async () => {
    const line = 'The quick brown fox — jumps über the lazy 東京 dog.\n';
    const numLines = Math.ceil((9 * 2 ** 20) / line.length);
    const ofLine = [...(await bpe.encode(line))];
    assert.deepEqual([...(await bpe.encode(line.repeat(3)))], [ofLine, ofLine, ofLine].flat()); // so the whole's are known
    const path = await fileOf('long.txt', line.repeat(numLines));
    const [ids] = await documentsOf([path], bpe);
    const expected = [...bpe.beginOfText, ...Array.from({ length: numLines }, () => ofLine).flat(), bpe.endOfText!];
    assert.equal(
      Buffer.compare(Buffer.from(Int32Array.from(ids!).buffer), Buffer.from(Int32Array.from(expected).buffer)),
      0,
    );
  }).timeout(60_000);

  it('reports fields that are not used, also when it is opened again', async () => {
    const path = await fileOf(
      'fields.jsonl',
      lines({ text: 'a', id: 1, source: '' }, { text: 'b', id: null }, { text: 'c', id: 3 }),
    );
    const cacheDir = await mkdtemp(join(folder, 'cache-'));
    for (const _ of [1, 2]) {
      const store = await TokenStore.open([path], bytes, { cacheDir, V: 258 });
      await store.close();
      assert.deepEqual(store.notes, [{ what: 'a field that is not used: "id"', count: 2, first: `${path}:1` }]);
    }
  });

  it('holds the files of folders and patterns', async () => {
    await mkdir(join(folder, 'parts'));
    await fileOf('parts/b.jsonl', lines({ text: 'b' }));
    await fileOf('parts/a.jsonl', lines({ text: 'a' }));
    const expected = [
      [256, 97, 257],
      [256, 98, 257],
    ];
    assert.deepEqual(await documentsOf([join(folder, 'parts')], bytes), expected);
    assert.deepEqual(await documentsOf([join(folder, 'p*s/*.jsonl')], bytes), expected);
  });

  const failures: [string, string | Uint8Array | null, RegExp][] = [
    ['empty.txt', '', /: is empty$/],
    ['mark.txt', '\ufeff', /: is empty$/],
    ['gone.txt', null, /: cannot be read: ENOENT/],
    ['latin.txt', Uint8Array.of(0x63, 0x0a, 0x66, 0xe9), /latin\.txt:2: is not UTF-8 text$/],
    ['cut.txt', Uint8Array.of(0x61, 0xe6, 0x9d), /: is not UTF-8 text$/],
    ['bad.jsonl', '{"text":"a"}\n{"text":', /:2: is not JSON/],
    ['other.jsonl', '{"txet":"a"}', /:1: must have \{ text \}, .* got txet$/],
    ['number.jsonl', '5', /:1: must be an object, got 5$/],
    ['messages.jsonl', '{"messages":[{"content":"a"}]}', /:1: messages\[0\]: role is missing$/],
    ['object.json', '{"data":{"text":"a"}}', /:1: must have \{ text \}, .* got data$/],
    ['none.jsonl', '\n\n', /: has no records$/],
    ['broken.jsonl.gz', gzipSync('{"text":"a"}').subarray(0, 20), /broken\.jsonl\.gz: /],
    ['broken.parquet', 'PAR1 and no more', /broken\.parquet: /],
  ];
  for (const [name, content, message] of failures) {
    it(`names ${name} and the problem, and leaves no file behind`, async () => {
      const good = await fileOf('good.txt', 'text');
      const path = content === null ? join(folder, name) : await fileOf(name, content);
      const cacheDir = await mkdtemp(join(folder, 'cache-'));
      const files = name === 'none.jsonl' ? [path] : [good, path];
      await assert.rejects(TokenStore.open(files, bytes, { cacheDir, V: 258 }), (error: Error) => {
        assert.ok(error.message.startsWith(path), error.message);
        assert.match(error.message, message);
        return true;
      });
      assert.deepEqual(await readdir(cacheDir), []);
    });
  }

  it('names ids outside the vocabulary with their place', async () => {
    const path = await fileOf('ids.txt', 'az');
    const cacheDir = join(folder, 'ids');
    await assert.rejects(
      TokenStore.open([path], bytes, { cacheDir, V: 257 }),
      /ids\.txt: token 3 has id 257, outside \[0, 257\)/,
    );
  });
});
