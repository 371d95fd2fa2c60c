// Models of tokenizer.json: tokens that HuggingFace's crate `tokenizers` expects of itself.
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { Encoder } from '../../lib/text/tokenizer/encoder.ts';
import { type Json, names, tokens, vocabulary } from '../support/tokens.ts';

describe('BPE', () => {
  const bpe = (vocab: Json, merges: unknown[], others: Json = {}) => ({ type: 'BPE', vocab, merges, ...others });
  const unrelated = bpe(vocabulary(...'unreltad', 're', 'at', 'ed', 'un', 'ated', 'rel', 'related', 'unrelated'), [
    'r e',
    'a t',
    'e d',
    'u n',
    'at ed',
    're l',
    'rel ated',
    'un related',
  ]);

  it('merges by rank; merges as pairs or as text, with a line of a version', () => {
    assert.deepEqual(tokens(unrelated, 'unrelated'), [['unrelated', 9]]);
    assert.deepEqual(names(unrelated, 'unreled'), ['un', 'rel', 'ed']);
    const pairs = (unrelated.merges as string[]).map((merge) => merge.split(' '));
    assert.deepEqual(names({ ...unrelated, merges: pairs }, 'related'), ['related']);
    assert.deepEqual(names({ ...unrelated, merges: ['#version: 0.2', ...(unrelated.merges as string[])] }, 'ated'), [
      'ated',
    ]);
  });

  it('of the same pair the leftmost goes first', () => {
    assert.deepEqual(names(bpe(vocabulary('a', 'aa'), ['a a']), 'aaaaa'), ['aa', 'aa', 'a']);
  });

  it('unknown characters: one token each, or one for all that follow one another', () => {
    const model = bpe(vocabulary('<unk>', 'a', 'b'), [], { unk_token: '<unk>' });
    assert.deepEqual(tokens(model, 'accb'), [
      ['a', 1],
      ['<unk>', 2],
      ['<unk>', 3],
      ['b', 4],
    ]);
    assert.deepEqual(tokens({ ...model, fuse_unk: true }, 'accb'), [
      ['a', 1],
      ['<unk>', 3],
      ['b', 4],
    ]);
    assert.deepEqual(tokens({ ...model, unk_token: null }, 'acb'), [
      ['a', 1],
      ['b', 3],
    ]);
  });

  it('an unk_token that is not there is an error where it is needed', () => {
    const model = bpe(vocabulary('a'), [], { unk_token: '' });
    assert.deepEqual(names(model, 'aa'), ['a', 'a']);
    assert.throws(() => names(model, 'ab'), { message: /no token for "b", and unk_token "" is not in the vocabulary/ });
  });

  it('bytes in place of unknown characters, where there are tokens for all of them', () => {
    const model = bpe(vocabulary('<unk>', '<0x61>', '<0xC3>', '<0xA9>'), [], {
      unk_token: '<unk>',
      byte_fallback: true,
    });
    assert.deepEqual(names(model, 'a'), ['<0x61>']);
    // As in the crate, an unknown character waits for the next that is known.
    assert.deepEqual(names(model, 'cé'), ['<0xC3>', '<0xA9>', '<unk>']);
    assert.deepEqual(tokens(model, 'éa'), [
      ['<0xC3>', 1],
      ['<0xA9>', 1],
      ['<0x61>', 2],
    ]);
  });

  it('prefix of what continues, suffix of what ends', () => {
    const prefixed = bpe(vocabulary('a', '##b', '##c', 'ab', 'abc'), ['a ##b', 'ab ##c'], {
      continuing_subword_prefix: '##',
    });
    assert.deepEqual(tokens(prefixed, 'abc'), [['abc', 3]]);
    const suffixed = bpe(vocabulary('a', 'b', 'b</w>', 'ab</w>'), ['a b</w>'], { end_of_word_suffix: '</w>' });
    assert.deepEqual(tokens(suffixed, 'bab'), [
      ['b', 1],
      ['ab</w>', 3],
    ]);
  });

  it('ignore_merges: a word of the vocabulary is itself, though no merge leads there', () => {
    const model = bpe(vocabulary('.:.:', '.', ':', '.:'), ['. :'], { ignore_merges: true });
    assert.deepEqual(names(model, '.:.:'), ['.:.:']);
    assert.deepEqual(names({ ...model, ignore_merges: false }, '.:.:'), ['.:', '.:']);
  });

  const refused: [json: Json, message: RegExp][] = [
    [bpe(vocabulary('a', 'b'), ['a b']), /model\.merges\[0\]: "ab" is not in the vocabulary/],
    [bpe(vocabulary('a', 'b', 'ab'), ['a b', 'c']), /model\.merges\[1\] must be two tokens/],
    [bpe(vocabulary('a'), [], { dropout: 0.1 }), /dropout is 0\.1/],
    [bpe({ a: 1, b: 1 }, []), /"a" and "b" both have id 1/],
    [bpe({ a: 2 ** 31 }, []), /"a" has id 2147483648/],
    [bpe({ a: 0.5 }, []), /"a" has id 0\.5/],
    [bpe(vocabulary('a'), [], { sample: 1 }), /field "sample" is not known/],
  ];
  for (const [json, message] of refused) {
    it(`refuses by ${message.source}`, () => assert.throws(() => new Encoder({ model: json }), { message }));
  }

  it('gives what merging step by step gives, for short words and long ones', () => {
    const letters = ['a', 'b', 'c', '▁', '😀'];
    /** The definition: the pair of the lowest rank, of these the leftmost, until there is none. */
    const stepByStep = (word: string, merges: readonly [string, string][]) => {
      const symbols = [...word];
      for (;;) {
        let best = { rank: Infinity, at: -1 };
        for (let i = 0; i + 1 < symbols.length; i++) {
          const rank = merges.findIndex(([left, right]) => left === symbols[i] && right === symbols[i + 1]);
          if (rank >= 0 && rank < best.rank) best = { rank, at: i };
        }
        if (best.at < 0) return symbols;
        symbols.splice(best.at, 2, symbols[best.at]! + symbols[best.at + 1]!);
      }
    };
    const picks = fc.array(fc.tuple(fc.nat(), fc.nat()), { maxLength: 12 });
    const word = fc.array(fc.constantFrom(...letters), { maxLength: 400, size: 'max' }).map((all) => all.join(''));
    fc.assert(
      fc.property(picks, word, (pairs, text) => {
        const known = [...letters];
        const merges: [string, string][] = [];
        for (const [i, j] of pairs) {
          const pair: [string, string] = [known[i % known.length]!, known[j % known.length]!];
          if (merges.some(([left, right]) => left === pair[0] && right === pair[1])) continue;
          merges.push(pair);
          if (!known.includes(pair.join(''))) known.push(pair.join(''));
        }
        assert.deepEqual(names(bpe(vocabulary(...known), merges), text), stepByStep(text, merges));
      }),
      { numRuns: 60 },
    );
  });

  it('a word of 300,000 characters takes work that grows little faster than its length', () => {
    const merges = ['a a', 'aa aa', 'aaaa aaaa', 'b a'];
    const model = bpe(vocabulary('a', 'b', 'aa', 'aaaa', 'aaaaaaaa', 'ba'), merges);
    const text = 'ab'.repeat(100_000) + 'a'.repeat(100_000);
    // a, ba …, b, and the run in eights
    assert.equal(names(model, text).length, 1 + 99_999 + 1 + 12_500);
  });
});

describe('Unigram', () => {
  const model = {
    type: 'Unigram',
    unk_id: 0,
    vocab: [
      ['<unk>', 0],
      ['ab', 0],
      ['cd', -0.1],
      ['abc', -0.2],
      ['a', -0.3],
      ['b', -0.4],
      ['c', -0.5],
      ['ABC', -0.5],
      ['abcdabcd', 20],
      ['q', 20.5],
      ['r', 20.5],
      ['qr', -0.5],
    ],
  };
  /** The parts of the text, by where tokens end. */
  const parts = (text: string) => {
    let begin = 0;
    return tokens(model, text).map(([, end]) => {
      const part = text.slice(begin, end);
      begin = end;
      return part;
    });
  };

  it('takes the cut with the greatest sum of scores', () => {
    const expected: Record<string, string[]> = {
      abc: ['abc'],
      AB: ['AB'],
      abcd: ['ab', 'cd'],
      abcc: ['abc', 'c'],
      xabcabaabcdd: ['x', 'abc', 'ab', 'a', 'ab', 'cd', 'd'],
      xyz東京: ['xyz東京'],
      ABC: ['ABC'],
      abABCcd: ['ab', 'ABC', 'cd'],
      ababcdabcdcd: ['ab', 'abcdabcd', 'cd'],
      abqrcd: ['ab', 'q', 'r', 'cd'],
    };
    for (const [text, pieces] of Object.entries(expected)) assert.deepEqual(parts(text), pieces);
  });

  it('bytes in place of unknown characters', () => {
    const bytes = {
      type: 'Unigram',
      unk_id: 0,
      byte_fallback: true,
      vocab: [
        ['<unk>', 0],
        ['<0xC3>', -0.01],
        ['<0xA9>', -0.03],
      ],
    };
    assert.deepEqual(tokens(bytes, 'é'), [
      ['<0xC3>', 1],
      ['<0xA9>', 1],
    ]);
    assert.deepEqual(names(bytes, '?é'), ['<unk>']);
  });

  it('of equal sums the one whose last token begins first', () => {
    const equal = {
      type: 'Unigram',
      unk_id: 0,
      vocab: [
        ['<unk>', 0],
        ['a', -1],
        ['b', -1],
        ['ab', -2],
        ['c', -1],
        ['bc', -2],
        ['abc', -3],
      ],
    };
    assert.deepEqual(names(equal, 'ab'), ['ab']);
    assert.deepEqual(names(equal, 'abc'), ['abc']);
    assert.deepEqual(names(equal, 'bcab'), ['bc', 'ab']);
  });

  it('an unknown character is an error where there is no token for it', () => {
    assert.throws(() => tokens({ ...model, unk_id: null }, 'abz'), { message: /no token for "z"/ });
    assert.throws(() => new Encoder({ model: { ...model, unk_id: 12 } }), { message: /unk_id is 12/ });
  });
});

describe('WordPiece and WordLevel', () => {
  const wordPiece = {
    type: 'WordPiece',
    unk_token: '[UNK]',
    vocab: vocabulary('[UNK]', 'un', '##aff', '##able', 'a', '##b'),
  };

  it('takes the longest part from the left; a word with a part that is none is unknown', () => {
    assert.deepEqual(tokens(wordPiece, 'unaffable'), [
      ['un', 2],
      ['##aff', 5],
      ['##able', 9],
    ]);
    assert.deepEqual(tokens(wordPiece, 'unaffx'), [['[UNK]', 6]]);
    assert.deepEqual(names(wordPiece, `a${'b'.repeat(99)}`), ['a', ...Array(99).fill('##b')]);
    assert.deepEqual(names(wordPiece, `a${'b'.repeat(100)}`), ['[UNK]']);
  });

  it('a word is a token, or unknown', () => {
    const model = { type: 'WordLevel', unk_token: '<unk>', vocab: vocabulary('<unk>', 'hello') };
    const others = { pre_tokenizer: { type: 'WhitespaceSplit' } };
    assert.deepEqual(tokens(model, 'hello you', others), [
      ['hello', 5],
      ['<unk>', 9],
    ]);
    assert.throws(() => tokens({ ...model, unk_token: '?' }, 'you'), {
      message: /unk_token "\?" is not in the vocabulary/,
    });
  });
});
