// Decoders and post-processors of tokenizer.json, as HuggingFace's crate `tokenizers` expects them.
import assert from 'node:assert/strict';
import { readDecoder } from '../../lib/text/tokenizer/decoders.ts';
import { readPostProcessor } from '../../lib/text/tokenizer/post_processor.ts';

type Json = Record<string, unknown>;

describe('post-processors', () => {
  const special = (...ids: string[]) => ids.map((id) => ({ SpecialToken: { id, type_id: 0 } }));
  const text = { Sequence: { id: 'A', type_id: 0 } };
  const template = {
    type: 'TemplateProcessing',
    single: [...special('<s>'), text, ...special('</s>')],
    special_tokens: {
      '<s>': { id: '<s>', ids: [1], tokens: ['<s>'] },
      '</s>': { id: '</s>', ids: [2, 3], tokens: ['<', '/s>'] },
    },
  };

  it('say what stands around a text', () => {
    assert.deepEqual(readPostProcessor(null), { begin: [], end: [] });
    assert.deepEqual(readPostProcessor({ type: 'ByteLevel', trim_offsets: true }), { begin: [], end: [] });
    assert.deepEqual(readPostProcessor(template), { begin: [1], end: [2, 3] });
    const roberta = { type: 'RobertaProcessing', sep: ['</s>', 9], cls: ['<s>', 8] };
    assert.deepEqual(readPostProcessor(roberta), { begin: [8], end: [9] });
    assert.deepEqual(readPostProcessor({ type: 'Sequence', processors: [template, roberta] }), {
      begin: [8, 1],
      end: [2, 3, 9],
    });
  });

  it('refuses what it does not know', () => {
    assert.throws(() => readPostProcessor({ ...template, single: special('<s>') }), {
      message: /has the text 0 times/,
    });
    assert.throws(() => readPostProcessor({ ...template, single: [text, ...special('<x>')] }), {
      message: /neither the text nor/,
    });
    assert.throws(() => readPostProcessor({ type: 'Odd' }), { message: /post_processor: type "Odd"/ });
  });
});

describe('decoders', () => {
  const decoded = (json: Json, ...parts: string[]) => readDecoder(json, 'decoder')(parts).join('');
  const cases: [json: Json, parts: string[], text: string][] = [
    [{ type: 'Metaspace', replacement: '▁', prepend_scheme: 'always' }, ['▁Hey', '▁friend!'], 'Hey friend!'],
    [{ type: 'Metaspace', replacement: '▁', prepend_scheme: 'never' }, ['▁Hey', '▁friend!'], ' Hey friend!'],
    [{ type: 'ByteFallback' }, ['<0xE5>', '<0x8f>', '<0xab>', 'a'], '叫a'],
    [{ type: 'ByteFallback' }, ['<0xE5>', '<0x8f>', 'a'], '\ufffd\ufffda'],
    [{ type: 'ByteFallback' }, ['<0xEF>', '<0xBB>', '<0xBF>'], '\ufeff'],
    [{ type: 'ByteLevel' }, ['Hello', 'Ġmy', '[PA D]', 'Ã', '©'], 'Hello my[PA D]é'],
    [{ type: 'WordPiece', prefix: '##', cleanup: true }, ['un', '##able', '.', 'a'], 'unable. a'],
    [{ type: 'BPEDecoder', suffix: '</w>' }, ['My</w>', 'n', 'ame</w>'], 'My name'],
    [{ type: 'Strip', content: 'H', start: 1, stop: 0 }, ['Hey', ' friend!', 'HHH'], 'ey friend!HH'],
    [{ type: 'Strip', content: 'y', start: 0, stop: 1 }, ['Hey', ' friend!'], 'He friend!'],
    [
      {
        type: 'Sequence',
        decoders: [
          { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
          { type: 'Fuse' },
          { type: 'Strip', content: ' ', start: 1, stop: 0 },
        ],
      },
      ['▁My', '▁na', 'me'],
      'My name',
    ],
  ];
  for (const [json, parts, text] of cases) {
    it(`${JSON.stringify(json).slice(0, 70)} of ${parts.join('|')}`, () => assert.equal(decoded(json, ...parts), text));
  }
  it('refuses what it does not know', () => {
    assert.throws(() => decoded({ type: 'Odd' }), { message: /decoder: type "Odd"/ });
    assert.throws(() => decoded({ type: 'Replace', pattern: { Regex: '(a+)+$' }, content: '' }), {
      message: /only \{ String \}/,
    });
  });
});
