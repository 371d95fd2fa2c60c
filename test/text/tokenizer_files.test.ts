// What stands beside a tokenizer.json: special tokens where transformers finds them, and files that are missing or hostile.
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { EncodeWorker } from '../../lib/text/tokenizer/encode_worker.ts';
import { loadTokenizer, type Tokenizer } from '../../lib/text/tokenizer.ts';

type Json = Record<string, unknown>;

const special = (id: number, content: string) => ({ id, content, special: true, normalized: false });
const template = {
  type: 'TemplateProcessing',
  single: [{ SpecialToken: { id: '<s>', type_id: 0 } }, { Sequence: { id: 'A', type_id: 0 } }],
  special_tokens: { '<s>': { id: '<s>', ids: [1], tokens: ['<s>'] } },
};
/** Letters, and four special tokens. */
const plain = {
  version: '1.0',
  added_tokens: [special(0, '<unk>'), special(1, '<s>'), special(2, '</s>'), special(3, '<|end|>')],
  model: {
    type: 'BPE',
    vocab: Object.fromEntries(['<unk>', '<s>', '</s>', '<|end|>', 'a', 'b', 'c'].map((token, id) => [token, id])),
    merges: [],
    unk_token: '<unk>',
  },
  decoder: { type: 'Fuse' },
};

let folder: string;
let count = 0;
const warnings: string[] = [];
const onWarning = (warning: Error) => warnings.push(warning.message);
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tokenizer-'));
  process.on('warning', onWarning);
});
after(async () => {
  process.off('warning', onWarning);
  await rm(folder, { recursive: true });
});

/** A folder with these files; its tokenizer.json. */
async function write(files: Record<string, Json | string>): Promise<string> {
  const own = join(folder, String(count++));
  await mkdir(own);
  for (const [name, content] of Object.entries(files)) {
    await writeFile(join(own, name), typeof content === 'string' ? content : JSON.stringify(content));
  }
  return join(own, 'tokenizer.json');
}
const load = async (files: Record<string, Json>, json: Json = plain) =>
  await loadTokenizer(await write({ 'tokenizer.json': json, ...files }));
const ends = ({ beginOfText, endOfText }: Tokenizer) => [[...beginOfText], endOfText];

describe('special tokens', () => {
  const withTemplate = { ...plain, post_processor: template };
  const cases: [name: string, files: Record<string, Json>, json: Json, expected: unknown][] = [
    ['nothing beside the file: the end that it has', {}, plain, [[], 2]],
    ['tokenizer_config.json', { 'tokenizer_config.json': { eos_token: '<|end|>' } }, withTemplate, [[1], 3]],
    [
      'an added token as an object',
      { 'tokenizer_config.json': { eos_token: { content: '<|end|>', lstrip: false } } },
      plain,
      [[], 3],
    ],
    [
      'special_tokens_map.json over tokenizer_config.json',
      { 'tokenizer_config.json': { eos_token: '</s>' }, 'special_tokens_map.json': { eos_token: '<|end|>' } },
      plain,
      [[], 3],
    ],
    [
      'but not where that lists the added tokens',
      {
        'tokenizer_config.json': { eos_token: '</s>', added_tokens_decoder: {} },
        'special_tokens_map.json': { eos_token: '<|end|>' },
      },
      plain,
      [[], 2],
    ],
    ['config.json', { 'tokenizer_config.json': {}, 'config.json': { eos_token_id: 3 } }, plain, [[], 3]],
    ['the first of several ids that is one', { 'config.json': { eos_token_id: [99, 3, 2] } }, plain, [[], 3]],
    ['generation_config.json', { 'generation_config.json': { eos_token_id: [3, 2] } }, plain, [[], 3]],
    ['files that say nothing of an end', { 'config.json': { model_type: 'qwen2' } }, plain, [[], null]],
    [
      'the default of a class',
      { 'tokenizer_config.json': { tokenizer_class: 'LlamaTokenizerFast', add_bos_token: false } },
      plain,
      [[], 2],
    ],
    [
      'add_bos_token of a Llama tokenizer without post_processor',
      { 'tokenizer_config.json': { tokenizer_class: 'LlamaTokenizer', add_bos_token: true, bos_token: '<s>' } },
      plain,
      [[1], 2],
    ],
    [
      'add_bos_token: false against the post_processor',
      { 'tokenizer_config.json': { tokenizer_class: 'LlamaTokenizer', add_bos_token: false, bos_token: '<s>' } },
      withTemplate,
      [[], 2],
    ],
    [
      'the class of the model',
      { 'tokenizer_config.json': { add_bos_token: true, bos_token: '<s>' }, 'config.json': { model_type: 'llama' } },
      plain,
      [[1], 2],
    ],
  ];
  for (const [name, files, json, expected] of cases) {
    it(name, async () => assert.deepEqual(ends(await load(files, json)), expected));
  }

  it('says where add_bos_token is not followed, and where a class stands in for the file', async () => {
    warnings.length = 0;
    const flag = {
      'tokenizer_config.json': { tokenizer_class: 'PreTrainedTokenizerFast', add_bos_token: true, bos_token: '<s>' },
    };
    assert.deepEqual(ends(await load(flag)), [[], null]);
    assert.deepEqual(ends(await load(flag, withTemplate)), [[1], null]);
    assert.deepEqual(ends(await load({ 'tokenizer_config.json': { tokenizer_class: 'LlamaTokenizer' } })), [[1], 2]);
    await new Promise(setImmediate);
    assert.equal(warnings.length, 2);
    assert.match(warnings[0]!, /add_bos_token: true in tokenizer_config.json is ignored: PreTrainedTokenizerFast/);
    assert.match(warnings[1]!, /has no post_processor: texts begin with bos_token/);
  });

  it('a token that the vocabulary does not have is an error', async () => {
    for (const [file, role] of [
      ['tokenizer_config.json', 'eos_token'],
      ['special_tokens_map.json', 'eos_token'],
    ] as const) {
      await assert.rejects(load({ [file]: { [role]: '<nope>' } }), {
        message: new RegExp(`${file}: ${role} "<nope>" is not in the vocabulary`),
      });
    }
    const bos = { tokenizer_class: 'LlamaTokenizer', add_bos_token: true, bos_token: '<nope>' };
    await assert.rejects(load({ 'tokenizer_config.json': bos }), {
      message: /bos_token "<nope>" is not in the vocabulary/,
    });
    await assert.rejects(load({ 'tokenizer_config.json': [] as unknown as Json }), {
      message: /tokenizer_config.json: cannot be read as a JSON object/,
    });
  });

  it('are not put where they are already', async () => {
    const tokenizer = await load({ 'tokenizer_config.json': { eos_token: '</s>' } }, withTemplate);
    const both = { begin: true, end: true };
    for (const text of ['ab', '<s>ab', 'ab</s>', '<s>ab</s>']) {
      assert.deepEqual([...tokenizer.wrap(await tokenizer.encode(text), both)], [1, 4, 5, 2], text);
    }
    assert.deepEqual([...tokenizer.wrap(new Int32Array(), both)], [1, 2]);
    assert.deepEqual([...tokenizer.wrap(Int32Array.of(4), { begin: true })], [1, 4]);
    assert.deepEqual([...tokenizer.wrap(Int32Array.of(4), { end: true })], [4, 2]);
    assert.deepEqual([...tokenizer.wrap(Int32Array.of(-2, 4, -3), both)], [-2, 4, -3]); // marked as no targets
  });

  it('are what the template has too', async () => {
    const chat_template = '{{ bos_token }}{{ eos_token }}{{ pad_token }}';
    const map = { bos_token: '<s>', eos_token: '<|end|>', pad_token: '<unk>' };
    const conversation = { messages: [{ role: 'user', content: 'a' }] };
    const mapped = await load({ 'tokenizer_config.json': { chat_template }, 'special_tokens_map.json': map });
    assert.equal(await mapped.chatTemplate!.prompt(conversation), '<s><|end|><unk>');
    const byClass = await load({
      'tokenizer_config.json': { chat_template, tokenizer_class: 'LlamaTokenizer', add_bos_token: false },
    });
    assert.equal(await byClass.chatTemplate!.prompt(conversation), '<s></s>');
  });

  it('are shown where asked for', async () => {
    const tokenizer = await load({});
    const ids = await tokenizer.encode('<s>ab</s>');
    assert.equal(tokenizer.decode(ids), 'ab');
    assert.equal(tokenizer.decode(ids, { special: true }), '<s>ab</s>');
    assert.equal(tokenizer.decode([4, 999, -1]), 'a');
  });
});

describe('texts', () => {
  it('with half a surrogate pair are refused, on either thread and by bytes too', async () => {
    const regex = { type: 'Split', pattern: { Regex: 'a+' }, behavior: 'Isolated', invert: false };
    for (const tokenizer of [
      await load({}),
      await load({}, { ...plain, pre_tokenizer: regex }),
      await loadTokenizer('bytes'),
    ]) {
      for (const text of ['ab\ud83d', '\ude00ab', `${'a'.repeat(20_000)}\ud83dc`]) {
        const at = text.search(/[\ud800-\udfff]/);
        await assert.rejects(tokenizer.encode(text), {
          message: new RegExp(`character ${at} of the text is half a surrogate pair`),
        });
        await assert.rejects(tokenizer.encodeWithEnds(text), /half a surrogate pair/);
      }
    }
  });

  it('without tokens, on either thread', async () => {
    const tokenizer = await load({}, { ...plain, normalizer: { type: 'Strip', strip_left: true, strip_right: true } });
    for (const text of ['', '  ', ' '.repeat(20_000)]) assert.equal((await tokenizer.encode(text)).length, 0);
  });
});

describe('files that are hostile', () => {
  const split = (Regex: string) => ({
    ...plain,
    pre_tokenizer: { type: 'Split', pattern: { Regex }, behavior: 'Isolated', invert: false },
  });

  for (const regex of ['(a+)+$', '(a|aa)+$', '(a*)*b']) {
    it(`a regular expression that hangs is an error, and the next text is encoded: ${regex}`, async () => {
      const worker = new EncodeWorker(JSON.stringify(split(regex)), 'a/tokenizer.json', 300);
      const hanging = assert.rejects(worker.encode(`${'a'.repeat(60)}!`), {
        message: /^a\/tokenizer.json: a text of 61 characters takes longer than 0.3 s/,
      });
      await Promise.all([hanging, assert.rejects(worker.encode('a'))]); // the one that waits goes with it
      assert.deepEqual([...(await worker.encode('ab')).ids], [4, 5]);
    });
  }

  it('tokenizer.model alone: what to do', async () => {
    const path = await write({ 'tokenizer.model': 'x' });
    await assert.rejects(loadTokenizer(path), (error: Error) => {
      assert.ok(error.message.startsWith(`${path}: there is no such file, only tokenizer.model.`));
      return error.message.includes('AutoTokenizer');
    });
  });

  it('a pointer of git-lfs', async () => {
    const path = await write({
      'tokenizer.json': 'version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n',
    });
    await assert.rejects(loadTokenizer(path), {
      message: `${path}: is a pointer of git-lfs, run  git lfs pull  in its folder`,
    });
  });

  it('keys of prototypes, and structures without end', async () => {
    const text = JSON.stringify(plain);
    const proto = await write({ 'tokenizer.json': text.replace('"vocab":{', '"vocab":{"__proto__":{"x":1},') });
    await assert.rejects(loadTokenizer(proto), { message: /"__proto__" has id/ });
    const depth = 20_000;
    const deep = `${'{"type":"Sequence","normalizers":['.repeat(depth)}${']}'.repeat(depth)}`;
    const nested = await write({ 'tokenizer.json': text.replace('{', `{"normalizer":${deep},`) });
    await assert.rejects(loadTokenizer(nested), (error: Error) =>
      error.message.startsWith(`${nested}: cannot be used`),
    );
  });

  it('what grows without end', async () => {
    const doubling = { type: 'Replace', pattern: { String: 'a' }, content: 'aaaaaaaa' };
    const grown = await load({}, { ...plain, normalizer: { type: 'Sequence', normalizers: Array(60).fill(doubling) } });
    await assert.rejects(grown.encode('aaaa'), { message: /makes more than 4352 characters of 4/ });
    const decoders = Array(60).fill({ ...doubling, content: 'aaaa' });
    const decoder = await load({}, { ...plain, decoder: { type: 'Sequence', decoders } });
    assert.throws(() => decoder.decode(new Int32Array(1000).fill(4)), { message: /makes more than/ });
    const many = { type: 'Sequence', normalizers: Array(64).fill({ type: 'NFC' }) };
    await assert.rejects(load({}, { ...plain, normalizer: many }), { message: /more than 64 such parts/ });
    const long = { ...special(7, 'x'.repeat(5000)) };
    await assert.rejects(load({}, { ...plain, added_tokens: [long] }), {
      message: /added_tokens\[0\]: has 5000 characters/,
    });
  });
});
