// Long texts come in parts: their ids, one after another, must be those of the whole text.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { lastCut } from '../../lib/text/tokenizer/cut.ts';
import { Encoder } from '../../lib/text/tokenizer/encoder.ts';

type Json = Record<string, unknown>;
const fixture = JSON.parse(readFileSync('test/fixtures/tokenizer/tokenizer.json', 'utf8')) as Json;

/** The fixture's vocabulary behind another pre-tokenizer. */
function encoder(changes: Json = {}): (text: string) => number[] {
  const made = new Encoder({ ...fixture, ...changes });
  return (text) => [...made.encode(text).ids];
}

const split = (pattern: string) => ({
  pre_tokenizer: {
    type: 'Sequence',
    pretokenizers: [
      { type: 'Split', pattern: { Regex: pattern }, behavior: 'Isolated', invert: false },
      { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: false },
    ],
  },
});

/** As the families write them. */
const gpt2 = encoder();
const llama3 = encoder(
  split(
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
  ),
);
const prefixSpace = encoder({
  pre_tokenizer: { type: 'ByteLevel', add_prefix_space: true, trim_offsets: true, use_regex: true },
});
const lines = encoder(split('[^\\n]+\\n*|\\n+'));

const code = readFileSync('node_modules/typescript/lib/lib.dom.d.ts', 'utf8').slice(0, 60_000);

/** The place of the cut, which is checked with what comes after it, too. */
async function checkedCut(text: string, after: string, encode: (text: string) => number[]): Promise<number> {
  const at = await lastCut(text, async (part) => encode(part));
  assert.deepEqual([...encode(text.slice(0, at)), ...encode(text.slice(at) + after)], encode(text + after));
  return at;
}

describe('cut', () => {
  for (const [name, encode] of [
    ['GPT-2', gpt2],
    ['Llama-3', llama3],
  ] as const) {
    it(`finds a place near the end behind the pre-tokenizer of ${name}`, async () => {
      for (const text of [code, code.replaceAll('\n', '\r\n')]) {
        const at = await checkedCut(text.slice(0, 20_000), text.slice(20_000, 30_000), encode);
        assert.ok(at > 15_000 && at < 20_000 - 512, `${at}`);
      }
    });

    it(`keeps the ids of any text behind the pre-tokenizer of ${name}`, async () => {
      const word = fc.constantFrom(
        'a',
        'word',
        "don't",
        'été',
        'e\u0301',
        '日本',
        '12345',
        '_',
        ';',
        '😀',
        '<|endoftext|>',
      );
      const gap = fc.constantFrom('', ' ', '  ', '\n', '\n\n', ' \n', '\n ', '\r\n', '\t', '\u00a0');
      const text = fc
        .array(fc.tuple(word, gap), { minLength: 100, maxLength: 500 })
        .map((parts) => parts.flat().join(''));
      let cuts = 0;
      await fc.assert(
        fc.asyncProperty(text, text, async (before, after) => {
          if ((await checkedCut(before, after, encode)) > 0) cuts += 1;
        }),
        { numRuns: 60 },
      );
      assert.ok(cuts > 20, `${cuts} cuts`);
    });
  }

  it('leaves a text whole that has no place for a cut', async () => {
    assert.equal(await checkedCut('x'.repeat(3000), 'x', gpt2), 0);
    assert.equal(await checkedCut('', 'x', gpt2), 0);
  });

  it('keeps the ids where a tokenizer puts a space before each text, or joins the words of a line', async () => {
    for (const encode of [prefixSpace, lines])
      await checkedCut(code.slice(0, 20_000), code.slice(20_000, 21_000), encode);
    assert.equal(await checkedCut('word\n'.repeat(1000), 'word', prefixSpace), 0);
  });
});
