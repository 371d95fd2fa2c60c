// Tokenizers: ids against HuggingFace's, long texts, bytes, files that are none.
import assert from 'node:assert/strict';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Tokenizer as HuggingFaceTokenizer } from '@huggingface/tokenizers';
import fc from 'fast-check';
import { loadTokenizer } from '../../lib/text/tokenizer.ts';

const at = (path: string) => new URL(`../../${path}`, import.meta.url).pathname;
const fixture = at('test/fixtures/tokenizer/tokenizer.json');
const quickstart = at('examples/quickstart/tokenizer.json');
const dom = at('node_modules/typescript/lib/lib.dom.d.ts');

interface Expected {
  text: string;
  idsWithoutSpecial: number[];
  decoded: string;
}

describe('tokenizer.json', () => {
  it("gives the ids and texts of HuggingFace's tokenizers", async () => {
    const tokenizer = await loadTokenizer(fixture);
    const expected: Expected[] = JSON.parse(await readFile(at('test/fixtures/tokenizer/expected.json'), 'utf8'));
    assert.ok(expected.length > 0);
    for (const { text, idsWithoutSpecial, decoded } of expected) {
      const ids = await tokenizer.encode(text);
      assert.deepEqual([...ids], idsWithoutSpecial, JSON.stringify(text));
      assert.equal(tokenizer.decode(ids), decoded, JSON.stringify(text));
    }
  });

  it('has all ids below V, added tokens among them, and keeps its path', async () => {
    for (const path of [fixture, quickstart]) {
      const tokenizer = await loadTokenizer(path);
      const json = JSON.parse(await readFile(path, 'utf8'));
      const added: number[] = json.added_tokens.map(({ id }: { id: number }) => id);
      assert.equal(tokenizer.vocabSize, Math.max(...added, ...Object.values<number>(json.model.vocab)) + 1);
      assert.equal(tokenizer.path, path);
    }
  });

  it('no ids give an empty text', async () => {
    const tokenizer = await loadTokenizer(fixture);
    assert.equal(tokenizer.decode([]), '');
    assert.equal((await tokenizer.encode('')).length, 0);
  });

  it("the quickstart's has V = 4096 and gives the whole of its document back", async () => {
    const tokenizer = await loadTokenizer(quickstart);
    const text = await readFile(dom, 'utf8');
    const ids = await tokenizer.encode(text);
    assert.equal(tokenizer.vocabSize, 4096);
    assert.ok(ids.every((id) => id >= 0 && id < 4096));
    assert.ok(ids.length < text.length / 2, `${ids.length} tokens of ${text.length} characters`);
    assert.ok(tokenizer.decode(ids) === text, 'another text came back');
  });

  for (const path of [quickstart, fixture]) {
    for (const length of [16383, 16384, 200_000]) {
      it(`${length} characters give the ids of @huggingface/tokenizers (${path.split('/').at(-2)})`, async () => {
        const text = (await readFile(dom, 'utf8')).slice(0, length);
        const library = new HuggingFaceTokenizer(JSON.parse(await readFile(path, 'utf8')), {});
        const expected = library.encode(text, { add_special_tokens: false }).ids;
        const ids = await (await loadTokenizer(path)).encode(text);
        assert.ok(Buffer.from(ids.buffer).equals(Buffer.from(Int32Array.from(expected).buffer)));
      });
    }
  }

  it('long texts at the same time do not mix', async () => {
    const tokenizer = await loadTokenizer(quickstart);
    const text = await readFile(dom, 'utf8');
    const texts = [text.slice(0, 20_000), text.slice(20_000, 45_000), text.slice(45_000, 80_000)];
    const all = await Promise.all(texts.map((each) => tokenizer.encode(each)));
    assert.deepEqual(
      all.map((ids) => tokenizer.decode(ids)),
      texts,
    );
  });
});

describe('where tokens end', () => {
  it('behind the bytes that they stand for', async () => {
    const tokenizer = await loadTokenizer(fixture);
    const { model } = JSON.parse(await readFile(fixture, 'utf8'));
    const tokens = new Map(Object.entries<number>(model.vocab).map(([token, id]) => [id, token]));
    await fc.assert(
      fc.asyncProperty(fc.string({ unit: 'grapheme', maxLength: 40 }), async (text) => {
        const { ids, ends } = await tokenizer.encodeWithEnds(text);
        assert.deepEqual([...ids], [...(await tokenizer.encode(text))]);
        let numBytes = 0;
        ids.forEach((id, i) => {
          numBytes += tokens.get(id)!.length; // a character of a token stands for a byte
          const upTo = Buffer.from(text, 'utf8').subarray(0, numBytes);
          // The last character may be there in part; it counts as whole.
          const whole = upTo.toString('utf8').replace(/\ufffd+$/, '');
          const isWhole = Buffer.byteLength(text.slice(0, ends[i])) === numBytes;
          const last = isWhole ? '' : [...text.slice(whole.length)][0]!;
          assert.equal(text.slice(0, ends[i]), whole + last);
        });
        assert.equal(ends.at(-1) ?? 0, text.length);
      }),
      { examples: [['日本 <|endoftext|> 😀'], ['e\u0301  été']] },
    );
  });
});

describe('bytes', () => {
  it('one id a byte of UTF-8, and any text back, with its byte order mark', async () => {
    const tokenizer = await loadTokenizer('bytes');
    const { vocabSize, endOfText, path } = tokenizer;
    assert.deepEqual({ vocabSize, endOfText, path }, { vocabSize: 256, endOfText: null, path: null });
    assert.deepEqual([...(await tokenizer.encode('é\u0000'))], [0xc3, 0xa9, 0]);
    await fc.assert(
      fc.asyncProperty(fc.string({ unit: 'binary' }), async (text) => {
        const ids = await tokenizer.encode(text);
        assert.deepEqual(Buffer.from(ids), Buffer.from(text, 'utf8'));
        const { ends } = await tokenizer.encodeWithEnds(text);
        const expected = [...text].flatMap((character, i, all) =>
          Array(Buffer.byteLength(character)).fill(all.slice(0, i + 1).join('').length),
        );
        assert.deepEqual([...ends], expected);
        assert.equal(tokenizer.decode(ids), text);
      }),
      { examples: [['\ufeffa'], ['東京 🚀']] },
    );
  });
});

describe('files that are not a tokenizer', () => {
  let folder: string;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tokenizer-'));
  });
  after(() => rm(folder, { recursive: true }));

  it('not there, and a folder', async () => {
    for (const path of [join(folder, 'gone.json'), folder]) {
      await assert.rejects(loadTokenizer(path), (error: Error) => error.message.startsWith(`${path}: `));
    }
  });

  it('a date of its template that is no day', async () => {
    for (const templateDate of ['2024-02-30', '26 Jul 2024', '2024-7-26', '']) {
      await assert.rejects(loadTokenizer(fixture, { templateDate }), {
        name: 'RangeError',
        message: `the chat template's date must be a day, YYYY-MM-DD, got '${templateDate}'`,
      });
    }
  });

  for (const text of ['', '{', 'null', '[]', '{}', '{"model": 1}', '{"model": {"type": "Nothing"}}']) {
    it(`${JSON.stringify(text)} for its text`, async () => {
      const path = join(folder, 'tokenizer.json');
      await writeFile(path, text);
      await assert.rejects(loadTokenizer(path), (error: Error) =>
        error.message.startsWith(`${path}: cannot be used as tokenizer.json: `),
      );
    });
  }
});
