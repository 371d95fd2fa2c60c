// Whole tokenizers against @huggingface/tokenizers, where tokens end in the text, and what is refused.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { Tokenizer } from '@huggingface/tokenizers';
import fc from 'fast-check';
import { Encoder } from '../../lib/text/tokenizer/encoder.ts';
import { type Json, vocabulary } from '../support/tokens.ts';

const fixture = JSON.parse(readFileSync('test/fixtures/tokenizer/tokenizer.json', 'utf8')) as Json;

describe('the whole', () => {
  /** As Llama-2's tokenizer.json is made. */
  const sentencePiece: Json = {
    ...fixture,
    normalizer: {
      type: 'Sequence',
      normalizers: [
        { type: 'Prepend', prepend: '▁' },
        { type: 'Replace', pattern: { String: ' ' }, content: '▁' },
      ],
    },
    pre_tokenizer: null,
    added_tokens: [{ id: 12, content: '</s>', special: true, normalized: false }],
    post_processor: null,
    decoder: null,
    model: {
      type: 'BPE',
      unk_token: '<unk>',
      fuse_unk: true,
      byte_fallback: false,
      vocab: vocabulary('<unk>', '▁', 'a', 'b', 'c', 'ab', '▁a', '▁ab', 'bc', '▁▁', '▁▁a', 'abab'),
      merges: ['▁ a', 'a b', '▁ ab', 'ab ab', 'b c', '▁ ▁', '▁▁ a', '▁a b'],
    },
  };

  for (const [name, json] of [
    ['GPT-2', fixture],
    ['Llama-2', sentencePiece],
  ] as const) {
    it(`gives the ids of @huggingface/tokenizers for any text, and ends that grow with it: ${name}`, () => {
      const library = new Tokenizer(json, {});
      const encoder = new Encoder(json);
      const unit = fc.constantFrom('a', 'b', 'c', 'ab', ' ', '  ', '\n', 'd', '😀', '</s>', '▁', "don't", '12', '日本');
      fc.assert(
        fc.property(fc.array(unit, { maxLength: 40 }), (units) => {
          const text = units.join('');
          const { ids, ends } = encoder.encode(text);
          assert.deepEqual([...ids], library.encode(text, { add_special_tokens: false }).ids);
          assert.ok(ends.every((end, i) => end >= (i > 0 ? ends[i - 1]! : 1)));
          assert.equal(ends.at(-1) ?? 0, text.length);
        }),
        { numRuns: 400 },
      );
    });
  }

  it('what stands before the first character, and a token across two words, end where their last character does', () => {
    const { ids, ends } = new Encoder(sentencePiece).encode('ab c</s> ab');
    const names = Object.keys((sentencePiece.model as { vocab: Json }).vocab);
    assert.deepEqual(
      [...ids].map((id) => names[id] ?? '</s>'),
      ['▁ab', '▁', 'c', '</s>', '▁', '▁ab'],
    );
    assert.deepEqual([...ends], [2, 3, 4, 8, 9, 11]);
  });

  const whole: [json: Json, message: RegExp][] = [
    [
      { ...fixture, normalizer: { type: 'Sequence', normalizers: [{ type: 'Odd' }] } },
      /normalizer\.normalizers\[0\]: type "Odd"/,
    ],
    [{ ...fixture, chunker: { size: 3 } }, /field "chunker" is not known/],
    [{ ...fixture, model: { type: 'Odd' } }, /model: type "Odd"/],
  ];
  for (const [json, message] of whole) {
    it(`refuses by ${message.source}`, () => assert.throws(() => new Encoder(json), { message }));
  }
});
