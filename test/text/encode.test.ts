// Records to ids: those of the whole text, trained on by the characters that they cover.
import assert from 'node:assert/strict';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ChatTemplate } from '../../lib/text/chat_template.ts';
import { idOf, RecordEncoder } from '../../lib/text/encode.ts';
import type { DataRecord } from '../../lib/text/records/record.ts';
import { loadTokenizer, type Tokenizer } from '../../lib/text/tokenizer.ts';

const LETTERS = '▁\nabcdefghijklmnopqrstuvwxyzQA[]/:é'.split('');
const BYTES = Array.from({ length: 256 }, (_, i) => `<0x${i.toString(16).toUpperCase().padStart(2, '0')}>`);
const MERGES = ['y e', 'ye s', '▁ yes', 'n o', '▁ no'];
const TOKENS = ['<unk>', '<s>', '</s>', '<|end|>', ...LETTERS, 'ye', 'yes', '▁yes', 'no', '▁no', ...BYTES];

/** As SentencePiece's models are converted: a text begins with a space of its own, also after a special token. */
const SENTENCE_PIECE = {
  added_tokens: ['<unk>', '<s>', '</s>', '<|end|>'].map((content, id) => ({
    ...{ id, content, single_word: false, lstrip: false, normalized: false, special: true },
    rstrip: content === '<|end|>',
  })),
  normalizer: {
    type: 'Sequence',
    normalizers: [
      { type: 'Prepend', prepend: '▁' },
      { type: 'Replace', pattern: { String: ' ' }, content: '▁' },
    ],
  },
  pre_tokenizer: null,
  post_processor: {
    type: 'TemplateProcessing',
    single: [{ SpecialToken: { id: '<s>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
    pair: [{ Sequence: { id: 'A', type_id: 0 } }, { Sequence: { id: 'B', type_id: 1 } }],
    special_tokens: { '<s>': { id: '<s>', ids: [1], tokens: ['<s>'] } },
  },
  decoder: null,
  model: {
    type: 'BPE',
    unk_token: '<unk>',
    fuse_unk: true,
    byte_fallback: true,
    vocab: Object.fromEntries(TOKENS.map((token, id) => [token, id])),
    merges: MERGES,
  },
};

let folder: string;
let tokenizer: Tokenizer;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'encode-'));
  await writeFile(join(folder, 'tokenizer.json'), JSON.stringify(SENTENCE_PIECE));
  await writeFile(join(folder, 'tokenizer_config.json'), JSON.stringify({ bos_token: '<s>', eos_token: '</s>' }));
  tokenizer = await loadTokenizer(join(folder, 'tokenizer.json'));
});
after(() => rm(folder, { recursive: true }));

/** Documents by token: [target], read|. */
async function shown(record: DataRecord, template?: string): Promise<string[]> {
  const chatTemplate = template ? new ChatTemplate(template, { bos_token: '<s>', eos_token: '</s>' }) : null;
  const documents = await new RecordEncoder({ ...tokenizer, chatTemplate }).encode(record, () => {});
  const nameOf = (id: number) => TOKENS[id]!.replace('\n', '⏎');
  return documents.map((ids) =>
    Array.from(ids, (marked) => (marked < 0 ? `${nameOf(idOf(marked))}|` : `[${nameOf(marked)}]`)).join(''),
  );
}

describe('encoding of records', () => {
  it('gives a prompt with its completion the ids of the whole, by the side of their last characters', async () => {
    assert.deepEqual(await shown({ prompt: 'Q: is it\nA:', completion: ' yes' }), [
      '<s>|▁|Q|:|▁|i|s|▁|i|t|⏎|A|:|[▁yes][</s>]',
    ]);
    assert.deepEqual(await shown({ prompt: 'Q: is it\nA:\n', completion: 'yes' }), [
      '<s>|▁|Q|:|▁|i|s|▁|i|t|⏎|A|:|⏎|[yes][</s>]',
    ]);
    assert.deepEqual(await shown({ prompt: 'is it ', completion: 'yes' }), ['<s>|▁|i|s|▁|i|t|[▁yes][</s>]']);
  });

  it('gives a conversation the ids of its rendering', async () => {
    const template =
      "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[q] {{ m.content }} [/q]{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}";
    const [is, yes, and, no] = ['is it', 'yes', 'and', 'no'];
    const messages = [
      { role: 'user', content: is },
      { role: 'assistant', content: yes },
      { role: 'user', content: and },
      { role: 'assistant', content: no },
    ];
    assert.deepEqual(await shown({ messages }, template), [
      '<s>|▁|[|q|]|▁|i|s|▁|i|t|▁|[|/|q|]|[▁yes][</s>]▁|[|q|]|▁|a|n|d|▁|[|/|q|]|[▁no][</s>]',
    ]);
  });

  it('trains on an end that takes white space with it, and on the space that an answer begins with', async () => {
    const template =
      "{% for m in messages %}{{ m.content + '<|end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '' }}{% endif %}";
    const messages = [
      { role: 'user', content: 'is' },
      { role: 'assistant', content: 'it' },
    ];
    assert.deepEqual(await shown({ messages }, template), ['▁|i|s|<|end|>|[▁][i][t][<|end|>]']);
  });

  it('counts the bytes of a character on the side of the character', async () => {
    assert.deepEqual(await shown({ prompt: 'ä', completion: 'ö' }), ['<s>|▁|<0xC3>|<0xA4>|[<0xC3>][<0xB6>][</s>]']);
  });

  it('writes the tokens around a text once', async () => {
    assert.deepEqual(await shown({ text: '<s>yes</s>' }), ['[<s>][▁yes][</s>]']);
    assert.deepEqual(await shown({ text: 'yes' }), ['[<s>][▁yes][</s>]']);
    assert.deepEqual(await shown({ prompt: '<s>is', completion: ' yes</s>' }), ['<s>|▁|i|s|[▁yes][</s>]']);
  });

  it('reports end tokens inside a text, and completions without text', async () => {
    const told: string[] = [];
    await new RecordEncoder(tokenizer).encode({ text: 'is</s>it</s>' }, (what) => told.push(what));
    assert.deepEqual(told.splice(0), ['a text that has the end of text within']);
    await new RecordEncoder(tokenizer).encode({ prompt: 'a', completion: '' }, (what) => told.push(what));
    assert.deepEqual(told.splice(0), ['a completion that is empty']);
    await new RecordEncoder(tokenizer).encode({ text: '' }, (what) => told.push(what), { isBegin: false });
    assert.equal(told.length, 0);
    await new RecordEncoder(tokenizer).encode({ text: '' }, (what) => told.push(what));
    assert.deepEqual(told, ['a text that is empty']);
  });
});
