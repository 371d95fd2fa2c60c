// Pre-tokenizers of tokenizer.json: the pieces that HuggingFace's crate `tokenizers` expects of itself, and where they end in the text.
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { toJavaScript } from '../../lib/text/tokenizer/oniguruma.ts';
import { Piece } from '../../lib/text/tokenizer/piece.ts';
import { readPreTokenizer } from '../../lib/text/tokenizer/pre_tokenizers.ts';

type Json = Record<string, unknown>;

/** Pieces, each with the place in the text where it ends. */
function split(json: Json, text: string): [piece: string, end: number][] {
  const pieces: [string, number][] = [];
  const preTokenize = readPreTokenizer(json, 'pre_tokenizer', { hasRegex: false, numParts: 0 });
  preTokenize(new Piece(text), (piece) => pieces.push([piece.text, piece.endAt(piece.text.length - 1)]));
  return pieces;
}
const texts = (json: Json, text: string) => split(json, text).map(([piece]) => piece);

const words = (behavior: string): Json => ({
  type: 'Split',
  pattern: { Regex: '\\w+|[^\\w\\s]+' },
  behavior,
  invert: true,
});
const literal = (delimiter: string, behavior: string, invert = false): Json => ({
  type: 'Split',
  pattern: { String: delimiter },
  behavior,
  invert,
});

describe('Split', () => {
  const expected: Record<string, [string, number][]> = {
    Removed: [
      ['How', 3],
      ['are', 7],
      ['you', 11],
      ['doing', 17],
      ['?', 18],
    ],
    Isolated: [
      ['How', 3],
      [' ', 4],
      ['are', 7],
      [' ', 8],
      ['you', 11],
      [' ', 12],
      ['doing', 17],
      ['?', 18],
    ],
    MergedWithPrevious: [
      ['How ', 4],
      ['are ', 8],
      ['you ', 12],
      ['doing', 17],
      ['?', 18],
    ],
    MergedWithNext: [
      ['How', 3],
      [' are', 7],
      [' you', 11],
      [' doing', 17],
      ['?', 18],
    ],
    Contiguous: [
      ['How', 3],
      [' ', 4],
      ['are', 7],
      [' ', 8],
      ['you', 11],
      [' ', 12],
      ['doing?', 18],
    ],
  };
  for (const [behavior, pieces] of Object.entries(expected)) {
    it(`${behavior}, inverted`, () => assert.deepEqual(split(words(behavior), 'How are you doing?'), pieces));
  }

  const final = 'the-final--countdown';
  const behaviors: Record<string, string[]> = {
    Removed: ['the', 'final', 'countdown'],
    Isolated: ['the', '-', 'final', '-', '-', 'countdown'],
    MergedWithPrevious: ['the-', 'final-', '-', 'countdown'],
    MergedWithNext: ['the', '-final', '-', '-countdown'],
    Contiguous: ['the', '-', 'final', '--', 'countdown'],
  };
  for (const [behavior, pieces] of Object.entries(behaviors)) {
    it(`${behavior} of each delimiter`, () => assert.deepEqual(texts(literal('-', behavior), final), pieces));
  }

  it('places between characters are not within them', () => {
    const at = (Regex: string) =>
      texts({ type: 'Split', pattern: { Regex }, behavior: 'MergedWithNext', invert: false }, '😀a\n😀');
    assert.deepEqual(at('^'), ['😀a\n', '😀']);
    assert.deepEqual(at('$'), ['😀a', '\n😀']);
  });

  it('inverted: what does not match is the delimiter', () => {
    assert.deepEqual(texts(literal('Hello', 'Removed', true), 'Hello Hello Hello'), ['Hello', 'Hello', 'Hello']);
  });

  it('loses and doubles nothing, but where it removes', () => {
    fc.assert(
      fc.property(
        fc.constantFrom('Isolated', 'MergedWithPrevious', 'MergedWithNext', 'Contiguous'),
        fc.boolean(),
        fc.string({ unit: fc.constantFrom('-', 'a', '日', '😀', ' ') }),
        (behavior, invert, text) => {
          const pieces = split({ ...literal('-', behavior), invert }, text);
          let all = '';
          for (const [piece, end] of pieces) {
            all += piece;
            assert.equal(end, all.length);
          }
          assert.equal(all, text);
        },
      ),
    );
  });
});

describe('other pre-tokenizers', () => {
  const cases: [json: Json, text: string, pieces: [string, number][]][] = [
    [
      { type: 'Punctuation' },
      'Hey friend!     How are you?!?',
      [
        ['Hey friend', 10],
        ['!', 11],
        ['     How are you', 27],
        ['?', 28],
        ['!', 29],
        ['?', 30],
      ],
    ],
    [
      { type: 'Punctuation', behavior: 'Contiguous' },
      'a?!?',
      [
        ['a', 1],
        ['?!?', 4],
      ],
    ],
    [
      { type: 'Punctuation', behavior: 'Removed' },
      'a, b',
      [
        ['a', 1],
        [' b', 4],
      ],
    ],
    [
      { type: 'Digits', individual_digits: false },
      'Hey 123 friend!',
      [
        ['Hey ', 4],
        ['123', 7],
        [' friend!', 15],
      ],
    ],
    [
      { type: 'Digits', individual_digits: true },
      'Hey 123 friend!',
      [
        ['Hey ', 4],
        ['1', 5],
        ['2', 6],
        ['3', 7],
        [' friend!', 15],
      ],
    ],
    [
      { type: 'Digits', individual_digits: true },
      '٣½',
      [
        ['٣', 1],
        ['½', 2],
      ],
    ],
    [
      { type: 'Whitespace' },
      'How are you doing?',
      [
        ['How', 3],
        ['are', 7],
        ['you', 11],
        ['doing', 17],
        ['?', 18],
      ],
    ],
    [{ type: 'Whitespace' }, '\n', []],
    [
      { type: 'WhitespaceSplit' },
      'Hey, man, Good?',
      [
        ['Hey,', 4],
        ['man,', 9],
        ['Good?', 15],
      ],
    ],
    [
      { type: 'FixedLength', length: 3 },
      'Hello 👋 world',
      [
        ['Hel', 3],
        ['lo ', 6],
        ['👋 w', 10],
        ['orl', 13],
        ['d', 14],
      ],
    ],
    [
      { type: 'BertPreTokenizer' },
      'Hey friend!  Why?!',
      [
        ['Hey', 3],
        ['friend', 10],
        ['!', 11],
        ['Why', 16],
        ['?', 17],
        ['!', 18],
      ],
    ],
    [
      { type: 'CharDelimiterSplit', delimiter: '|' },
      'a|b||c',
      [
        ['a', 1],
        ['b', 3],
        ['c', 6],
      ],
    ],
    [
      { type: 'Metaspace', replacement: '▁', prepend_scheme: 'always', split: true },
      'Hey   friend!',
      [
        ['▁Hey', 3],
        ['▁', 4],
        ['▁', 5],
        ['▁friend!', 13],
      ],
    ],
    [{ type: 'Metaspace', replacement: '▁', prepend_scheme: 'never', split: false }, 'Hey you', [['Hey▁you', 7]]],
    [
      { type: 'Metaspace', replacement: '▁', add_prefix_space: false },
      'Hey you',
      [
        ['Hey', 3],
        ['▁you', 7],
      ],
    ],
    [
      { type: 'ByteLevel', add_prefix_space: true, use_regex: true },
      "I'm é",
      [
        ['ĠI', 1],
        ["'m", 3],
        ['ĠÃ©', 5],
      ],
    ],
    [{ type: 'ByteLevel', add_prefix_space: false, use_regex: false }, ' 日', [['ĠæĹ¥', 2]]],
  ];
  for (const [json, text, pieces] of cases) {
    it(`${JSON.stringify(json)} of ${JSON.stringify(text)}`, () => assert.deepEqual(split(json, text), pieces));
  }

  it('Metaspace first: only at the very beginning of the text', () => {
    const first = (split: boolean) => ({
      type: 'Sequence',
      pretokenizers: [
        literal('<s>', 'Isolated'),
        { type: 'Metaspace', replacement: '▁', prepend_scheme: 'first', split },
      ],
    });
    assert.deepEqual(texts(first(false), 'Hey my friend <s>how▁are you'), ['▁Hey▁my▁friend▁', '<s>', 'how▁are▁you']);
    assert.deepEqual(texts(first(false), ' Hey <s>how'), ['▁Hey▁', '<s>', 'how']);
    assert.deepEqual(texts(first(false), ' Hey <s>how <s>are <s> you'), [
      '▁Hey▁',
      '<s>',
      'how▁',
      '<s>',
      'are▁',
      '<s>',
      '▁you',
    ]);
  });

  const refused: [json: Json, message: RegExp][] = [
    [{ type: 'UnicodeScripts' }, /pre_tokenizer: type "UnicodeScripts" is not supported/],
    [{ type: 'toString' }, /type "toString" is not supported/],
    [{ type: 'Digits', individual_digits: true, base: 16 }, /field "base" is not known/],
    [literal('-', 'Sideways'), /behavior must be one of .*, got "Sideways"/],
    [
      { type: 'Metaspace', replacement: '▁', add_prefix_space: false, prepend_scheme: 'always' },
      /add_prefix_space is false/,
    ],
    [{ ...words('Isolated'), pattern: { Regex: '(a)\\1' } }, /\\1 is not supported/],
    [{ ...words('Isolated'), pattern: { Regex: '\\Ga' } }, /\\G is not supported/],
    [{ ...words('Isolated'), pattern: { Regex: '(?m:.)' } }, /options are not supported: \(\?m:/],
    [{ ...words('Isolated'), pattern: { Regex: 'a{2}?' } }, /\{2\}\? is not supported/],
    [{ type: 'CharDelimiterSplit', delimiter: '' }, /delimiter must be one character/],
    [{ ...words('Isolated'), pattern: { Regex: '(a' } }, /pre_tokenizer\.pattern: /],
    [{ ...words('Isolated'), pattern: { Regex: '\\R' } }, /pre_tokenizer\.pattern: /],
    [{ ...words('Isolated'), pattern: { Regex: 'a'.repeat(20_000) } }, /20000 characters/],
  ];
  for (const [json, message] of refused) {
    it(`refuses ${JSON.stringify(json).slice(0, 90)}`, () => assert.throws(() => split(json, 'a'), { message }));
  }
});

describe('regular expressions of Oniguruma', () => {
  const found = (source: string, text: string) => text.match(toJavaScript(source)) ?? [];

  it('possessive quantifiers and atomic groups give nothing back', () => {
    assert.deepEqual(found('a++a', 'aaa'), []);
    assert.deepEqual(found('a+a', 'aaa'), ['aaa']);
    assert.deepEqual(found('(?>a+)a', 'aaa'), []);
    assert.deepEqual(found('[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+', ' ab  c'), [' ab', ' c']);
    assert.deepEqual(found('(ab|a)?+b', 'ab'), ['b']);
    assert.deepEqual(found('😀++😀', '😀😀😀'), []);
    assert.deepEqual(found('(?:a{2})++a', 'aaaa'), ['aaa']); // from the second on
    assert.deepEqual(found('a{1,2}+', 'aaa'), ['aaa']); // one repetition of another
  });

  it("cl100k's pattern, in which $ is also the end of a line", () => {
    const cl100k =
      "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}++|\\p{N}{1,3}+| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*+|\\s++$|\\s*[\\r\\n]|\\s+(?!\\S)|\\s";
    // By hand. Before a word \s++$ has taken all white space and gives none back: \s*[\r\n] is next, up to the last line end.
    assert.deepEqual(found(cl100k, "I'LL be\n\n  there  \n"), ['I', "'LL", ' be', '\n\n', ' ', ' there', '  \n']);
    assert.deepEqual(found(cl100k, 'a  \n\nb'), ['a', '  \n\n', 'b']);
    assert.deepEqual(found(cl100k.replace('\\s++$', '\\s+$'), 'a  \n\nb'), ['a', '  \n', '\n', 'b']);
    assert.deepEqual(found('\\s+$', 'a  \nb'), ['  ']);
    assert.deepEqual(found('\\s++$', 'a  \nb'), []);
  });

  it('(?i) goes to the end of its group, and folds to letters beyond ASCII', () => {
    assert.deepEqual(found('(?i)ab|c', 'AB C c'), ['AB', 'C', 'c']);
    assert.deepEqual(found('x(?:(?i)a)b', 'xAb xAB'), ['xAb']);
    assert.deepEqual(found("'(?i:[sdmt]|ll)", "'S 'ſ 'LL"), ["'S", "'ſ", "'LL"]);
    assert.deepEqual(found('(?i:k++)', 'kK\u212a'), ['kK\u212a']);
  });

  it('white space, digits and words are those of Unicode', () => {
    assert.deepEqual(found('\\s', '\u0085\ufeff\u3000'), ['\u0085', '\u3000']);
    assert.deepEqual(found('\\d+', '12٣'), ['12٣']);
    assert.deepEqual(found('[\\p{Han}\\p{Hiragana}]+', '日本のx'), ['日本の']);
    assert.deepEqual(found('[[:alpha:]&&[^b]]+', 'abc'), ['a', 'c']);
  });
});
