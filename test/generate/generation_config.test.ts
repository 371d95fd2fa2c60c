// generation_config.json: where a text ends, and how it is sampled where the caller says nothing.
import assert from 'node:assert/strict';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  type Decoder,
  type GenerateOptions,
  generate,
  generateText,
  loadModel,
  loadTokenizer,
  saveModel,
  type Tokenizer,
} from '../../lib/index.ts';
import { ChatTemplate } from '../../lib/text/chat_template.ts';
import { runCommand } from '../support/command.ts';
import { openTestDevice, testDevice } from '../support/devices.ts';
import { newFolder } from '../support/runs.ts';

const PROMPT = 'hello';
let bytes: Tokenizer;
before(async () => {
  bytes = await loadTokenizer('bytes');
});

/** A folder with the fixture's weights, these fields in config.json, and this generation_config.json. */
async function folderWith(config: object, generation?: unknown): Promise<string> {
  const folder = newFolder();
  using device = openTestDevice();
  using model = await loadModel('test/fixtures/parity/llama', { device });
  await saveModel(model, folder);
  await writeFile(join(folder, 'config.json'), JSON.stringify({ ...model.config.source, ...config }));
  await rm(join(folder, 'generation_config.json')); // the fixture's
  if (generation !== undefined) await write(folder, generation);
  return folder;
}

async function write(folder: string, generation: unknown): Promise<void> {
  const text = typeof generation === 'string' ? generation : JSON.stringify(generation);
  await writeFile(join(folder, 'generation_config.json'), text);
}

async function idsOf(model: Decoder, options: GenerateOptions = {}): Promise<number[]> {
  const ids: number[] = [];
  for await (const { id } of generate(model, bytes, PROMPT, { maxTokens: 12, ...options })) ids.push(id);
  return ids;
}

describe('generation_config.json', () => {
  it('says at which ids a text ends; config.json where it does not', async () => {
    using device = openTestDevice();
    const folder = await folderWith({});
    using model = await loadModel(folder, { device });
    const options = { seed: 5 };
    const free = await idsOf(model, { ...options, stopIds: [] });
    const [early, late] = [free[2]!, free.find((id, i) => i > 4 && free.indexOf(id) === i)!];
    const upTo = (id: number) => free.slice(0, free.indexOf(id));
    const inConfig = await folderWith({ eos_token_id: [early] });
    for (const [where, generation, expected] of [
      [folder, { eos_token_id: late }, upTo(late)],
      [folder, { eos_token_id: [319, late] }, upTo(late)],
      [folder, { eos_token_id: [late, early] }, upTo(early)],
      [folder, { eos_token_id: null }, free],
      [inConfig, undefined, upTo(early)],
      [inConfig, { bos_token_id: 1 }, upTo(early)],
      [inConfig, { eos_token_id: late }, upTo(late)], // the file has the last word
    ] as const) {
      if (generation) await write(where, generation);
      using each = await loadModel(where, { device });
      assert.deepEqual(await idsOf(each, options), expected, JSON.stringify(generation));
      assert.deepEqual(await idsOf(each, { ...options, stopIds: [] }), free);
    }
  });

  it('says how tokens are chosen, unless the caller does', async () => {
    using device = openTestDevice();
    const folder = await folderWith({ eos_token_id: null });
    using model = await loadModel(folder, { device });
    const options = { seed: 5 };
    const sampled = await idsOf(model, options);
    const greedy = await idsOf(model, { temperature: 0 });
    assert.notDeepEqual(sampled, greedy);
    for (const [generation, same, more] of [
      [{ do_sample: false, temperature: 0.7 }, { temperature: 0 }, {}],
      [{ do_sample: true, temperature: 0.3 }, { temperature: 0.3 }, {}],
      [{ temperature: 0.6, top_p: 0.5, top_k: 5 }, { temperature: 0.6, topP: 0.5, topK: 5 }, {}],
      [{ min_p: 0.4 }, { minP: 0.4 }, {}],
      [{ do_sample: false, repetition_penalty: 1.8 }, { temperature: 0, repetitionPenalty: 1.8 }, {}],
      [{ do_sample: false }, {}, { temperature: 1 }],
      [
        { top_k: 1, top_p: 0.1, min_p: 1, repetition_penalty: 3 },
        {},
        { topK: 0, topP: 1, minP: 0, repetitionPenalty: 1 },
      ],
    ] as [object, GenerateOptions, GenerateOptions][]) {
      await write(folder, {});
      const expected = await idsOf(model, { ...options, ...same });
      await write(folder, generation);
      assert.deepEqual(await idsOf(model, { ...options, ...more }), expected, JSON.stringify(generation));
    }
  });

  it('is followed by the command line too', async () => {
    using device = openTestDevice();
    const folder = await folderWith({ eos_token_id: null });
    using model = await loadModel(folder, { device });
    const greedy = await idsOf(model, { temperature: 0 });
    const stop = greedy.find((id, i) => i > 2 && greedy.indexOf(id) === i)!;
    await write(folder, { do_sample: false, eos_token_id: [stop] });
    const command = ['generate', '--model', folder, '--tokenizer', 'bytes', '--device', testDevice];
    const lines = runCommand([...command, '--prompt', PROMPT, '--max-tokens', '12', '--json'])
      .trim()
      .split('\n');
    assert.deepEqual(
      lines.map((line) => JSON.parse(line).id),
      greedy.slice(0, greedy.indexOf(stop)),
    );
  });

  it('is refused by file and field where a value makes no sense', async () => {
    using device = openTestDevice();
    const folder = await folderWith({});
    using model = await loadModel(folder, { device });
    for (const [generation, message] of [
      [{ eos_token_id: 'x' }, /generation_config.json: eos_token_id must be an id or a list of ids, got "x"/],
      [{ temperature: -1 }, /generation_config.json: temperature must be a number of 0 or more, got -1/],
      [{ top_k: 2.5 }, /top_k must be an integer/],
      [{ top_p: 0 }, /top_p must be a number above 0/],
      [{ min_p: 2 }, /min_p must be/],
      [{ repetition_penalty: '1' }, /repetition_penalty must be a positive number, got "1"/],
      [{ stop_strings: [1] }, /stop_strings must be/],
      ['{', /generation_config.json: is not JSON/],
      ['\ufeff{}', /generation_config.json: is not JSON: it begins with a byte order mark/],
      ['[]', /generation_config.json: is not a JSON object/],
    ] as const) {
      await write(folder, generation);
      await assert.rejects(idsOf(model), message);
    }
  });

  it('is warned of where a field would change the text and is not supported', async () => {
    using device = openTestDevice();
    const folder = await folderWith({});
    using model = await loadModel(folder, { device });
    const warnings: string[] = [];
    const listener = (warning: Error) => void warnings.push(warning.message);
    process.on('warning', listener);
    try {
      await write(folder, { num_beams: 1, typical_p: 1, bad_words_ids: null, max_length: 4096, pad_token_id: 0 });
      await idsOf(model);
      await write(folder, { num_beams: 4, no_repeat_ngram_size: 3, typical_p: 1 });
      await idsOf(model);
      await idsOf(model);
      await new Promise(setImmediate);
    } finally {
      process.off('warning', listener);
    }
    const told = warnings.filter((text) => text.includes('generation_config.json'));
    assert.equal(told.length, 1, told.join('\n'));
    assert.match(told[0]!, /ignored, since they are not supported: no_repeat_ngram_size \(3\), num_beams \(4\)$/);
  });

  it('may have stop strings', async () => {
    using device = openTestDevice();
    const folder = await folderWith({ eos_token_id: null }, { do_sample: false });
    using model = await loadModel(folder, { device });
    const ascii = { ...bytes, decode: (ids: ArrayLike<number>) => Array.from(ids, (id) => `<${id}>`).join('') };
    const whole = await generateText(model, ascii, PROMPT, { maxTokens: 12 });
    const stop = whole.split('>')[4]!;
    await write(folder, { do_sample: false, stop_strings: [stop] });
    assert.equal(await generateText(model, ascii, PROMPT, { maxTokens: 12 }), whole.slice(0, whole.indexOf(stop)));
    assert.equal(await generateText(model, ascii, PROMPT, { maxTokens: 12, stop: [] }), whole);
  });

  it('need not name the token that ends an answer: it is taken from the chat template', async () => {
    using device = openTestDevice();
    const folder = await folderWith({ eos_token_id: 319 }, { eos_token_id: 318 });
    using model = await loadModel(folder, { device });
    const answer = async (template: string, options: GenerateOptions = {}, end = 0) => {
      const added = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: true };
      const tokenizer: Tokenizer = {
        ...bytes,
        addedTokens: [{ ...added, id: end, content: '<|end|>' }],
        chatTemplate: new ChatTemplate(template),
      };
      const ids: number[] = [];
      const prompt = {
        messages: [{ role: 'user', content: 'hi' }],
        tools: [{ type: 'function', function: { name: 'look' } }],
        variables: { mood: 'good' },
      };
      for await (const { id } of generate(model, tokenizer, prompt, { maxTokens: 12, seed: 5, ...options }))
        ids.push(id);
      return ids;
    };
    const chatml =
      '{{ mood }}{{ tools[0].function.name if tools }}{% for message in messages %}<{{ message.role }}>{{ message.content }}<|end|>\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}';
    const plain = chatml.replace('<|end|>', '');
    const free = await answer(chatml, { stopIds: [] });
    const end = free.find((id, i) => i > 2 && free.indexOf(id) === i)!;
    assert.deepEqual(await answer(chatml, {}, end), free.slice(0, free.indexOf(end)));
    assert.deepEqual(await answer(chatml, { stopIds: [] }, end), free);
    assert.deepEqual(await answer(plain, {}, end), await answer(plain, { stopIds: [] }, end), 'no such token');
    const ids: number[] = [];
    const rendered = 'goodlook<user>hi<|end|>\n<assistant>';
    for await (const { id } of generate(model, bytes, rendered, { maxTokens: 12, seed: 5, stopIds: [] })) ids.push(id);
    assert.deepEqual(ids, free, 'the template is given tools and variables');
  });
});
