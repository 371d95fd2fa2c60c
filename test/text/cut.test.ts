// Long texts are encoded in pieces: the ids must be those of the whole text.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { Tokenizer } from '@huggingface/tokenizers';
import fc from 'fast-check';
import { cut } from '../../lib/text/tokenizer.ts';

type Json = Record<string, unknown>;
const fixture = JSON.parse(readFileSync('test/fixtures/tokenizer/tokenizer.json', 'utf8')) as Json;

/** The fixture's vocabulary behind another pre-tokenizer. */
function encoder(changes: Json = {}): (text: string) => number[] {
  const tokenizer = new Tokenizer({ ...fixture, ...changes }, {});
  return (text) => tokenizer.encode(text, { add_special_tokens: false }).ids;
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

function sameIds(text: string, encode: (text: string) => number[], pieceLength: number): number {
  const pieces = cut(text, encode, pieceLength);
  assert.equal(pieces.join(''), text);
  assert.deepEqual(pieces.flatMap(encode), encode(text));
  return pieces.length;
}

describe('cut', () => {
  for (const [name, encode] of [
    ['GPT-2', gpt2],
    ['Llama-3', llama3],
  ] as const) {
    it(`cuts a long text behind the pre-tokenizer of ${name}`, () => {
      assert.ok(sameIds(code, encode, 1000) >= 50);
      assert.ok(sameIds(code.replaceAll('\n', '\r\n'), encode, 1000) >= 50);
    });

    it(`keeps the ids of any text behind the pre-tokenizer of ${name}`, () => {
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
        '/',
        '😀',
        '<|endoftext|>',
      );
      const gap = fc.constantFrom('', ' ', '  ', '\n', '\n\n', ' \n', '\n ', '\r\n', '\t', '\u00a0');
      fc.assert(
        fc.property(
          fc.array(fc.tuple(word, gap), { maxLength: 60 }),
          fc.integer({ min: 1, max: 20 }),
          (parts, length) => {
            sameIds(parts.flat().join(''), encode, length);
          },
        ),
        { numRuns: 300 },
      );
    });
  }

  it('leaves a text whole that has no place for a cut', () => {
    assert.equal(sameIds('x'.repeat(3000), gpt2, 100), 1);
    assert.equal(sameIds('', gpt2, 100), 1);
  });

  it('keeps the ids where a tokenizer puts a space before each text, or joins the words of a line', () => {
    for (const encode of [prefixSpace, lines]) sameIds(code, encode, 1000);
    assert.equal(cut('word\n'.repeat(1000), prefixSpace, 1000).length, 1);
  });
});
