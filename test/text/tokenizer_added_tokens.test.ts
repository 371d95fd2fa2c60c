// Added tokens of tokenizer.json: tokens that HuggingFace's crate `tokenizers` expects of itself.
import assert from 'node:assert/strict';
import { Encoder } from '../../lib/text/tokenizer/encoder.ts';
import { type Json, tokens, vocabulary } from '../support/tokens.ts';

describe('added tokens', () => {
  const letters = { type: 'BPE', vocab: vocabulary(...' abcdefghijklmnopqrstuvwxyz-,[]▁😺'), merges: [] };
  const size = Object.keys(letters.vocab).length;
  const added = (...all: Json[]) => ({
    normalizer: { type: 'Lowercase' },
    added_tokens: all.map((token, i) => ({ id: size + i, special: false, normalized: true, ...token })),
  });
  /** Texts in which tokens are set in <>, as the crate's tests have them. */
  const marked = (text: string, others: Json) => {
    let [out, begin] = ['', 0];
    for (const [token, end] of tokens(letters, text, others)) {
      const covered = text.slice(begin, end);
      out += [...token].length > 1 ? `<${covered}>` : covered;
      begin = end;
    }
    return out;
  };

  it('single_word, lstrip, rstrip, and after normalization', () => {
    const others = added(
      { content: 'my', lstrip: true, rstrip: true },
      { content: 'name' },
      { content: 'ony', single_word: true },
      { content: '[CLS]', normalized: false, special: true },
      { content: '[SEP]', normalized: false, special: true },
    );
    assert.equal(marked('[CLS] My name is Anthony [SEP]', others), '<[CLS]>< My ><name> is Anthony <[SEP]>');
    assert.equal(marked('[cls] ony-ony', others), '[cls] <ony>-<ony>');
  });

  it('single words are those of Unicode', () => {
    const others = added({ content: '-a', single_word: true });
    assert.equal(marked('-a b-a -ab -a', others), '<-a> b-a -ab <-a>');
    assert.equal(marked('\u0330-a', others), '\u0330-a'); // a combining mark is of a word
  });

  it('the leftmost, of these the longest, whatever their order', () => {
    assert.equal(
      marked('i like dancing', added({ content: 'nci' }, { content: 'danc' }, { content: 'ing' }, { content: 'ike' })),
      'i l<ike> <danc><ing>',
    );
    assert.equal(marked('abcd', added({ content: 'ab' }, { content: 'abc' })), '<abc>d');
    assert.equal(marked('abc', added({ content: 'bc' }, { content: 'abd' })), 'a<bc>');
  });

  it('white space between two tokens that both take it goes to the first', () => {
    const others = added({ content: 'ab', rstrip: true }, { content: 'cd', lstrip: true });
    assert.equal(marked('x ab  cd y', others), 'x <ab  ><cd> y');
    assert.equal(marked('ab x  cd', others), '<ab >x<  cd>');
  });

  it('white space of Unicode is taken too', () => {
    assert.equal(marked('a\t-b\u2000c', added({ content: '-b', lstrip: true, rstrip: true })), 'a<\t-b\u2000>c');
  });

  it('of which normalization leaves nothing, or the same, are refused', () => {
    assert.throws(() => marked('a', added({ content: 'Aa' }, { content: 'aA' })), {
      message: /"Aa" and "aA" are both "aa" when normalized/,
    });
    const strip = { normalizer: { type: 'Strip', strip_left: true, strip_right: true } };
    assert.throws(() => marked('a', { ...added({ content: '  ' }), ...strip }), {
      message: /" {2}" is empty when normalized/,
    });
  });

  it('ids are those that their place in the list gives', () => {
    const of =
      (...tokens: Json[]) =>
      () =>
        new Encoder({ model: letters, added_tokens: tokens });
    assert.doesNotThrow(of({ id: 1, content: 'a' }, { id: size, content: '<x>' }, { id: size + 1, content: '<y>' }));
    assert.throws(of({ id: size + 3, content: '<x>' }), {
      message: new RegExp(`"<x>" has id ${size + 3} there, and ${size} by`),
    });
    assert.throws(of({ id: 2, content: 'a' }), { message: /"a" has id 2 there, and 1 by/ });
    assert.throws(of({ id: -1, content: '<x>' }), { message: /added_tokens\[0\]: "<x>" has id -1/ });
    assert.throws(of({ content: '<x>' }), { message: /"<x>" has id undefined/ });
    assert.throws(of({ id: size, content: '<x>', fuzzy: true }), { message: /field "fuzzy" is not known/ });
  });
});
