// Generation: the cache against whole forwards, sampling against the distribution, text that comes whole.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { basename, join } from 'node:path';
import fc from 'fast-check';
import { TextStream } from '../../lib/generate/text_stream.ts';
import {
  addLora,
  type Decoder,
  type GenerateOptions,
  generate,
  generateText,
  KeyValueCache,
  loadModel,
  loadTokenizer,
  noGrad,
  plainPolicy,
  saveModel,
  type Tokenizer,
  tensor,
  tidy,
} from '../../lib/index.ts';
import { runCommand, startCommand } from '../support/command.ts';
import { assertClose } from '../support/compare.ts';
import { openTestDevice, testDevice } from '../support/devices.ts';
import { parityCases } from '../support/parity.ts';
import { integers, normals } from '../support/random.ts';
import { newFolder } from '../support/runs.ts';

const llama = 'test/fixtures/parity/llama';
let bytes: Tokenizer;
before(async () => {
  bytes = await loadTokenizer('bytes');
});

/** (N,V) logits of a whole forward. */
async function wholeLogits(model: Decoder, ids: Int32Array): Promise<Float32Array> {
  const batch = {
    inputs: tensor(ids, { device: model.device }),
    targets: tensor(ids, { device: model.device }),
    T: ids.length,
  };
  const logits = noGrad(() => tidy(() => model.logits(batch, plainPolicy(ids.length))));
  const values = await logits.toFloat32();
  for (const each of [logits, batch.inputs, batch.targets]) each.dispose();
  return values;
}

describe('the key/value cache', () => {
  for (const folder of parityCases('test/fixtures/parity')) {
    for (const [dtype, tolerance] of [
      ['float32', 1e-5],
      ['bfloat16', 3e-2],
    ] as const) {
      it(`gives the logits of whole forwards: ${basename(folder)}, ${dtype}`, async () => {
        using device = openTestDevice();
        using model = await loadModel(folder, { device, dtype });
        const V = model.config.vocabSize;
        const ids = integers(70, V, 3); // longer than every window of the fixtures
        const expected = await wholeLogits(model, ids);
        const before = device.memory().liveBytes;
        {
          using cache = new KeyValueCache(model, 70);
          let done = 0;
          for (const count of [1, 40, 1, 1, 26, 1]) {
            // frequencies of longrope depend on the length of the whole text
            const logits = await model.decode(ids.subarray(done, done + count), cache, { length: 70 });
            done += count;
            assertClose(logits, expected.subarray((done - 1) * V, done * V), tolerance, `after ${done} tokens`);
          }
          await assert.rejects(
            model.decode(Int32Array.of(1), cache),
            /the cache holds 70 tokens, 1 more exceed its capacity of 70/,
          );
        }
        assert.equal(device.memory().liveBytes, before);
      });
    }
  }

  it('gives the logits of whole forwards with adapters too', async () => {
    using device = openTestDevice();
    using model = await loadModel(llama, { device });
    const { adapters } = addLora(model, { rank: 2, modules: ['q_proj', 'down_proj', 'lm_head'] });
    for (const { b } of adapters.values()) b.write(Float32Array.from(normals(b.size, 3, 0.2)));
    const ids = integers(9, 256, 3);
    const expected = await wholeLogits(model, ids);
    using cache = new KeyValueCache(model, 9);
    await model.decode(ids.subarray(0, 4), cache);
    const logits = await model.decode(ids.subarray(4), cache);
    assertClose(logits, expected.subarray(8 * model.config.vocabSize), 1e-5, 'logits');
  });
});

async function idsOf(model: Decoder, prompt: number[], options: GenerateOptions): Promise<number[]> {
  const ids: number[] = [];
  for await (const { id } of generate(model, bytes, prompt, { stopIds: [], ...options })) ids.push(id);
  return ids;
}

describe('generate', () => {
  it('takes the likeliest token at temperature 0, as whole forwards would', async () => {
    using device = openTestDevice();
    using model = await loadModel(llama, { device });
    const V = model.config.vocabSize;
    const ids = [5, 9, 2];
    const found = await idsOf(model, ids, { maxTokens: 12, temperature: 0, chunkSize: 2 });
    for (const id of found) {
      const logits = (await wholeLogits(model, Int32Array.from(ids))).subarray(-V);
      assert.equal(id, logits.indexOf(Math.max(...logits)));
      ids.push(id);
    }
    assert.equal(found.length, 12);
  });

  it('gives the same tokens for the same seed, and others for another seed', async () => {
    using device = openTestDevice();
    using model = await loadModel(llama, { device });
    const run = (seed: number) => idsOf(model, [1], { maxTokens: 20, seed });
    assert.deepEqual(await run(1), await run(1));
    assert.notDeepEqual(await run(1), await run(2));
  });

  it('gives its memory back when the caller stops early, and when a signal does', async () => {
    using device = openTestDevice();
    using model = await loadModel(llama, { device });
    const before = device.memory().liveBytes;
    for await (const _ of generate(model, bytes, [1], { maxTokens: 50, stopIds: [] })) break;
    assert.equal(device.memory().liveBytes, before);
    const stop = new AbortController();
    let count = 0;
    for await (const _ of generate(model, bytes, [1], { maxTokens: 50, stopIds: [], signal: stop.signal })) {
      if (++count === 3) stop.abort();
    }
    assert.ok(count <= 5, `${count}`);
    assert.equal(device.memory().liveBytes, before);
  });

  it('ends at a stop id, which is not part of it', async () => {
    using device = openTestDevice();
    using model = await loadModel(llama, { device });
    const all = await idsOf(model, [1], { maxTokens: 30, seed: 4 });
    const stopId = all[9]!;
    const found = await idsOf(model, [1], { maxTokens: 30, seed: 4, stopIds: [stopId] });
    assert.deepEqual(found, all.slice(0, all.indexOf(stopId)));
  });

  it('refuses prompts that it cannot continue', async () => {
    using device = openTestDevice();
    using model = await loadModel(llama, { device });
    const run = (prompt: Parameters<typeof generate>[2], options: GenerateOptions = {}) =>
      generateText(model, bytes, prompt, options);
    await assert.rejects(run(''), /the prompt is empty/);
    await assert.rejects(run([1, 999]), /token 1 of the prompt has id 999, outside \[0, 320\)/);
    await assert.rejects(run([1], { temperature: -1 }), /temperature must be/);
    await assert.rejects(run([1], { topP: 0 }), /topP must be/);
    await assert.rejects(run([1], { maxTokens: 0 }), /maxTokens must be a positive integer/);
    await assert.rejects(run([1], { topK: 2.5 }), /topK must be an integer, got 2.5/);
    await assert.rejects(run([1], { seed: -1 }), /seed must be/);
    await assert.rejects(run([1], { minP: 1.5 }), /minP must be/);
    await assert.rejects(run([1], { repetitionPenalty: 0 }), /repetitionPenalty must be/);
    await assert.rejects(run({ messages: [{ role: 'user', content: 'a' }] }), /needs a chat template/);
  });

  it('reports logits that are not finite', async () => {
    using device = openTestDevice();
    for (const [value, name] of [
      [Number.NaN, 'NaN'],
      [Infinity, 'Infinity|NaN'],
    ] as const) {
      using model = await loadModel(llama, { device });
      const norm = model.namedParameters().get('model.norm.weight')!;
      norm.write(new Float32Array(norm.size).fill(value));
      for (const temperature of [0, 1]) {
        const run = generateText(model, bytes, 'hello', { temperature, maxTokens: 8 });
        await assert.rejects(
          run,
          new RegExp(`generate: the model's logits are not finite: (-?${name}) for id \\d+, after 0`),
        );
      }
    }
  });

  it('ends without an error when the reader of its output closes the pipe', async () => {
    using device = openTestDevice();
    using model = await loadModel(llama, { device });
    const folder = newFolder();
    await saveModel(model, folder);
    const command = ['generate', '--model', folder, '--tokenizer', 'bytes', '--device', testDevice, '--prompt', 'ab'];
    const child = startCommand(...command, '--max-tokens', '100000', '--json');
    let errors = '';
    child.stderr.on('data', (text) => (errors += text));
    child.stdout.once('data', () => child.stdout.destroy());
    const [code] = await once(child, 'exit');
    assert.deepEqual([code, errors], [0, '']);
  });

  it('refuses options on the command line that are not numbers, and names them', () => {
    for (const [option, value, message] of [
      ['--max-tokens', 'many', /'--max-tokens <n>' argument 'many' is invalid. It must be an integer from 1/],
      ['--max-tokens', '0', /--max-tokens/],
      ['--max-tokens', '2.5', /--max-tokens/],
      ['--temperature', '-1', /--temperature <t>' argument '-1' is invalid. It must be a number from 0/],
      ['--top-k', '', /--top-k/],
      ['--top-p', '1.5', /--top-p <p>' argument '1.5' is invalid. It must be a number from 0 to 1/],
      ['--min-p', 'NaN', /--min-p/],
      ['--repetition-penalty', 'Infinity', /--repetition-penalty/],
      ['--seed', '-3', /--seed/],
    ] as const) {
      assert.throws(() => runCommand(['generate', '--model', 'x', '--prompt', 'x', option, value]), message);
    }
  });

  it('runs from the command line', async () => {
    using device = openTestDevice();
    using model = await loadModel(llama, { device });
    const folder = newFolder();
    await saveModel(model, folder);
    const command = ['generate', '--model', folder, '--tokenizer', 'bytes', '--device', testDevice];
    const run = (...more: string[]) => runCommand([...command, ...more], 'from stdin');
    const lines = run('--prompt', 'ab', '--max-tokens', '5', '--json', '--seed', '3')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    assert.ok(lines.length > 0 && lines.every(({ id, logProbability }) => Number.isInteger(id) && logProbability <= 0));
    assert.ok(run('--prompt', '-', '--max-tokens', '3').endsWith('\n'));
  });
});

describe('the text of tokens', () => {
  const pushed = (text: string, stops: string[] = []) => {
    const stream = new TextStream(bytes, { stops });
    const pieces: string[] = [];
    for (const id of new TextEncoder().encode(text)) {
      if (stream.isStopped) break;
      pieces.push(stream.push(id));
    }
    pieces.push(stream.end());
    return pieces;
  };

  it('comes in whole characters, and its pieces add up to the whole text', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'grapheme' }), (text) => {
        const pieces = pushed(text);
        assert.equal(pieces.join(''), text);
        if (!text.includes('\ufffd')) assert.ok(pieces.every((piece) => !piece.includes('\ufffd')));
      }),
    );
    assert.deepEqual(pushed('aé€'), ['a', '', 'é', '', '', '€', '']);
  });

  it('ends before a stop string, of which no part is given out', () => {
    assert.deepEqual(pushed('one END two', ['END']), ['o', 'n', 'e', ' ', '', '', '', '']);
    assert.equal(pushed('an E, an EN, the END', ['END']).join(''), 'an E, an EN, the ');
    assert.equal(pushed('ababac', ['abac']).join(''), 'ab');
    assert.equal(pushed('held: EN', ['END']).join(''), 'held: EN');
    assert.equal(pushed('xyz', ['zz', 'y']).join(''), 'x');
    fc.assert(
      fc.property(fc.stringMatching(/^[ab]*$/), fc.stringMatching(/^[ab]+$/), (text, stop) => {
        const at = text.indexOf(stop);
        assert.equal(pushed(text, [stop]).join(''), at < 0 ? text : text.slice(0, at));
      }),
    );
  });

  it('adds up to the whole text with a tokenizer.json too', async () => {
    const tokenizer = await loadTokenizer('test/fixtures/tokenizer/tokenizer.json');
    const text = 'naïve café — 東京 🚀 ½ the end';
    const stream = new TextStream(tokenizer);
    let whole = '';
    for (const id of await tokenizer.encode(text)) whole += stream.push(id);
    assert.equal(whole + stream.end(), text);
  });

  it('goes on from the prompt with its space, which decoders leave out where a text begins', async () => {
    const tokenizer = await loadTokenizer(await spacedTokenizer());
    const streamed = (ids: number[], context: number[] = []) => {
      const stream = new TextStream(tokenizer, { context });
      return ids.map((id) => stream.push(id)).join('') + stream.end();
    };
    const [s, a, b, _a, _, é1, é2] = [1, 3, 4, 5, 6, 7, 8] as const;
    assert.equal(streamed([_a, b, _a]), 'ab a');
    assert.equal(streamed([_a, b, _a], [s, _a, b]), ' ab a');
    assert.equal(streamed([a, _a], [s, _a]), 'a a');
    assert.equal(streamed([_, _a], [s, _a]), '  a');
    assert.equal(streamed([s, _a, b], [_a]), ' ab');
    assert.equal(streamed([_a], [...new Array<number>(40).fill(_a), b]), ' a');
    assert.equal(streamed([é2, a], [_a, é1]), 'éa', 'a character that the prompt had half of');
    assert.equal(streamed([s, _a, _a]), 'a a', 'a special token is no text');
  });
});

/** A tokenizer.json as Llama 2 has it: a space is ▁, and the first one of a text is left out. */
async function spacedTokenizer(): Promise<string> {
  const tokens = ['<unk>', '<s>', '</s>', 'a', 'b', '▁a', '▁', '<0xC3>', '<0xA9>'];
  const special = (id: number) => ({
    id,
    content: tokens[id],
    single_word: false,
    lstrip: false,
    rstrip: false,
    normalized: false,
    special: true,
  });
  const json = {
    version: '1.0',
    truncation: null,
    padding: null,
    added_tokens: [special(0), special(1), special(2)],
    normalizer: {
      type: 'Sequence',
      normalizers: [
        { type: 'Prepend', prepend: '▁' },
        { type: 'Replace', pattern: { String: ' ' }, content: '▁' },
      ],
    },
    pre_tokenizer: null,
    post_processor: null,
    decoder: {
      type: 'Sequence',
      decoders: [
        { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
        { type: 'ByteFallback' },
        { type: 'Fuse' },
        { type: 'Strip', content: ' ', start: 1, stop: 0 },
      ],
    },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: '<unk>',
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: true,
      byte_fallback: true,
      vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
      merges: [['▁', 'a']],
    },
  };
  const path = join(newFolder(), 'tokenizer.json');
  await writeFile(path, JSON.stringify(json));
  return path;
}
