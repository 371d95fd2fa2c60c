// Normalizers of tokenizer.json: texts that HuggingFace's crate `tokenizers` expects of itself, and where in the original their characters end.
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { readNormalizer } from '../../lib/text/tokenizer/normalizers.ts';
import { Piece } from '../../lib/text/tokenizer/piece.ts';

type Json = Record<string, unknown>;

const normalized = (json: Json | Json[], text: string): Piece => {
  const all = Array.isArray(json) ? { type: 'Sequence', normalizers: json } : json;
  return readNormalizer(all, 'normalizer', { hasRegex: false, numParts: 0 })(new Piece(text));
};
/** The text, and for each of its units the end in the original. */
function withEnds(json: Json | Json[], text: string): [string, number[]] {
  const piece = normalized(json, text);
  return [piece.text, Array.from(piece.text, (_, i) => i).map((i) => piece.endAt(i))];
}

const bert = {
  type: 'BertNormalizer',
  clean_text: true,
  handle_chinese_chars: true,
  strip_accents: null,
  lowercase: true,
};

describe('normalizers', () => {
  const cases: [json: Json | Json[], text: string, expected: string][] = [
    [{ type: 'NFKC' }, '\ufb01', 'fi'],
    [[{ type: 'NFKD' }, { type: 'StripAccents' }], 'Me llamó', 'Me llamo'],
    [{ type: 'StripAccents' }, '这很简单', '这很简单'],
    [[{ type: 'NFKD' }, { type: 'StripAccents' }, { type: 'Lowercase' }], 'ậ…', 'a...'],
    [
      [{ type: 'NFKD' }, { type: 'StripAccents' }, { type: 'Lowercase' }],
      'Cụ thể, bạn sẽ tham gia một nhóm các giám đốc điều hành tổ chức',
      'cu the, ban se tham gia mot nhom cac giam đoc đieu hanh to chuc',
    ],
    [[{ type: 'NFKD' }, { type: 'StripAccents' }, { type: 'Lowercase' }], 'ำน\u{e49}ำ3ลำ', 'านา3ลา'],
    [{ type: 'Lowercase' }, 'ΑΣ ΣΑΣ', 'ασ σασ'], // no sigma of ends of words
    [{ type: 'Lowercase' }, 'İ', 'i̇'],
    [{ type: 'Strip', strip_left: true, strip_right: true }, ' \t a b\u3000', 'a b'],
    [{ type: 'Strip', strip_left: false, strip_right: true }, ' a ', ' a'],
    [{ type: 'Strip', strip_left: true, strip_right: true }, '  ', ''],
    [{ type: 'Prepend', prepend: '▁' }, 'Hello', '▁Hello'],
    [{ type: 'Prepend', prepend: '▁' }, '', ''],
    [{ type: 'Replace', pattern: { String: "''" }, content: '"' }, "This is a ''test''", 'This is a "test"'],
    [{ type: 'Replace', pattern: { Regex: '\\s+' }, content: ' ' }, 'This     is   a         test', 'This is a test'],
    [{ type: 'Replace', pattern: { String: ' ' }, content: '$&' }, 'a b', 'a$&b'],
    [{ type: 'Nmt' }, 'a\u0007b\u200bc\n', 'ab c '],
    [{ type: 'ByteLevel' }, 'é 日', 'Ã©ĠæĹ¥'],
    [bert, 'Héllo\u0000 \u00a0世界\r', 'hello  ' + ' 世  界  '],
    [{ ...bert, strip_accents: false }, 'É', 'é'],
    [{ ...bert, lowercase: false }, 'É', 'É'],
  ];
  for (const [json, text, expected] of cases) {
    it(`${JSON.stringify(json).slice(0, 80)} of ${JSON.stringify(text).slice(0, 30)}`, () =>
      assert.equal(normalized(json, text).text, expected));
  }

  it('say where characters end that were put in, taken away, composed or taken apart', () => {
    assert.deepEqual(withEnds({ type: 'Prepend', prepend: '▁' }, 'Hi'), ['▁Hi', [1, 1, 2]]);
    assert.deepEqual(withEnds({ type: 'NFC' }, 'ae\u0301b'), ['aéb', [1, 3, 4]]);
    assert.deepEqual(withEnds({ type: 'NFD' }, 'aéb'), ['ae\u0301b', [1, 2, 2, 3]]);
    assert.deepEqual(withEnds({ type: 'NFKC' }, 'ﬁ😀'), ['fi😀', [1, 1, 3]]);
    assert.deepEqual(withEnds({ type: 'Replace', pattern: { String: 'bb' }, content: 'xyz' }, 'abbc'), [
      'axyzc',
      [1, 3, 3, 3, 4],
    ]);
    assert.deepEqual(withEnds({ type: 'Strip', strip_left: true, strip_right: true }, '  a  '), ['a', [3]]);
    assert.deepEqual(withEnds({ type: 'StripAccents' }, 'e\u0304\u0304o'), ['eo', [1, 4]]);
    assert.deepEqual(withEnds([{ type: 'Prepend', prepend: '▁' }, { type: 'NFD' }], 'é'), ['▁e\u0301', [1, 1, 1]]);
    assert.equal(normalized({ type: 'Strip', strip_left: true, strip_right: false }, '  ab').startAt(0), 2);
  });

  it('forms of Unicode are those of the whole text, whatever stands beside one another', () => {
    const unit = fc.constantFrom(
      'a',
      'e',
      '\u0301',
      '\u0323',
      'é',
      '가',
      'ᄀ',
      'ᅡ',
      'ᆨ',
      'ｶ',
      'ﾞ',
      'ﾡ',
      'ำ',
      'ﬁ',
      '½',
      '\u0958',
      '😀',
      '\u09c7',
      '\u09be',
      '\u1e9b\u0323',
    );
    fc.assert(
      fc.property(fc.constantFrom('NFC', 'NFD', 'NFKC', 'NFKD'), fc.array(unit, { maxLength: 12 }), (form, units) => {
        const text = units.join('');
        const piece = normalized({ type: form }, text);
        assert.equal(piece.text, text.normalize(form));
        const ends = Array.from({ length: piece.text.length }, (_, i) => piece.endAt(i));
        assert.ok(ends.every((end, i) => end >= (i === 0 ? 1 : ends[i - 1]!) && end <= text.length));
        if (piece.text !== '') assert.equal(ends.at(-1), text.length);
      }),
      { numRuns: 500 },
    );
  });

  for (const json of [
    { type: 'Unheard' },
    { type: 'Strip', strip_left: true },
    { type: 'NFC', version: 2 },
    { type: 'Prepend' },
  ] as Json[]) {
    it(`refuses ${JSON.stringify(json)}`, () =>
      assert.throws(() => normalized(json, 'a'), { message: /^normalizer: / }));
  }
});

/** A double array as SentencePiece stores it, in which each node has 256 places of its own. */
function charsmap(entries: Record<string, string>): string {
  interface Node {
    next: Map<number, Node>;
    value: number;
  }
  const root: Node = { next: new Map(), value: -1 };
  let replacements = '';
  for (const [from, to] of Object.entries(entries)) {
    let node = root;
    for (const byte of Buffer.from(from)) {
      const next: Node = node.next.get(byte) ?? { next: new Map(), value: -1 };
      node.next.set(byte, next);
      node = next;
    }
    node.value = Buffer.byteLength(replacements);
    replacements += `${to}\0`;
  }
  const units: number[] = [];
  let free = 256;
  // A unit: offset << 10, bit 8 where its node has a value, the byte; the value lies at the offset itself, in the place of byte 0.
  const place = (node: Node, at: number, byte: number) => {
    const base = free;
    free += 256;
    const offset = base ^ at;
    units[at] = ((offset << 10) | (node.value >= 0 ? 0x100 : 0) | byte) >>> 0;
    if (node.value >= 0) units[base] = (node.value | 0x80000000) >>> 0;
    for (const [label, next] of node.next) place(next, base ^ label, label);
  };
  place(root, 0, 0);
  const trie = Buffer.alloc(4 * free);
  for (let i = 0; i < free; i++) trie.writeUInt32LE(units[i] ?? 0, 4 * i);
  const size = Buffer.alloc(4);
  size.writeUInt32LE(trie.length);
  return Buffer.concat([size, trie, Buffer.from(replacements)]).toString('base64');
}

describe('Precompiled', () => {
  const table = (entries: Record<string, string>) => ({ type: 'Precompiled', precompiled_charsmap: charsmap(entries) });

  it('replaces graphemes, or else characters, by the shortest prefix that the table has', () => {
    const json = table({ '\r': ' ', '\ufb01': 'fi', 𝔾: 'G', '\u0627\u0653': 'آ', '\u200d': ' ', é: 'é', ำ: '\u0e4dา' });
    assert.deepEqual(withEnds(json, 'a\ufb01b'), ['afib', [1, 2, 2, 3]]);
    assert.equal(normalized(json, '𝔾o').text, 'Go');
    assert.equal(normalized(json, '\u0627\u0653').text, 'آ');
    assert.equal(normalized(json, 'คำ').text, 'ค\u0e4dา');
    assert.deepEqual(withEnds(json, 'x\r\ny'), ['x y', [1, 3, 4]]); // CR LF is one grapheme: the line end goes too
  });

  it('refuses a table that is none', () => {
    for (const precompiled_charsmap of ['', 'AAAA', Buffer.from([255, 0, 0, 0, 1]).toString('base64')]) {
      assert.throws(() => normalized({ type: 'Precompiled', precompiled_charsmap }, 'a'), {
        message: /^normalizer.precompiled_charsmap is no table of replacements/,
      });
    }
  });
});
