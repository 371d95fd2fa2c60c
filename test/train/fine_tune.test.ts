// A HuggingFace folder, fine-tuned by the example's configuration and the command line alone.
import assert from 'node:assert/strict';
import { copyFileSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Decoder, decoderConfig, saveModel } from '../../lib/index.ts';
import { runCommand } from '../support/command.ts';
import { openTestDevice, testDevice } from '../support/devices.ts';
import { newFolder, tinyLlama } from '../support/runs.ts';

const tokenizer = 'test/fixtures/tokenizer';

const minisequence = (...args: string[]) => runCommand(args);

describe('fine-tuning a folder', () => {
  it('takes four commands: preview, train, generate, merge', async () => {
    const model = newFolder();
    {
      using device = openTestDevice();
      using made = new Decoder(decoderConfig({ ...tinyLlama, vocab_size: 1024 }), {
        device,
        dtype: 'bfloat16',
      }).initialize(1);
      await saveModel(made, model, { tokenizerFrom: tokenizer });
    }
    const chats = join(newFolder(), 'chats.jsonl');
    const conversation = (i: number) => [
      { role: 'user', content: `What is ${i} + 1?` },
      { role: 'assistant', content: `${i + 1}.` },
    ];
    const lines = Array.from({ length: 60 }, (_, i) => `${JSON.stringify({ messages: conversation(i) })}\n`);
    writeFileSync(chats, lines.join(''));
    const outDir = newFolder();
    const set = [
      `model.path=${model}`,
      `data.files=[${chats}]`,
      'sequenceLength=64',
      `device=${testDevice}`,
      'epochs=4',
      `outDir=${outDir}`,
    ];
    const options = [
      '--config',
      'examples/fine_tune.yaml',
      '--set',
      ...set,
      'optimizer.learningRate=0.02',
      'lora.modules=[q_proj, v_proj, gate_proj, up_proj, down_proj, lm_head]',
    ];

    const [first] = minisequence('preview', ...options, '--examples', '1', '--json')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    assert.ok(first.numTargets > 0 && first.numTargets < 32, 'answers are targets, questions are not');
    assert.equal(first.documentStart.length, 64);
    assert.match(minisequence('preview', ...options, '--examples', '1'), /What is \d+ \+ 1\?.*\[\d+\./s);

    const events = minisequence('train', ...options, '--json')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    const losses = events.filter(({ type }) => type === 'step').map(({ loss }) => loss);
    assert.ok(losses.at(-1) < losses[0] - 1, `${losses}`);
    assert.ok(events.some(({ type, perplexity }) => type === 'evaluation' && perplexity > 1));
    const adapter = JSON.parse(readFileSync(join(outDir, 'adapter_config.json'), 'utf8'));
    assert.equal(adapter.r, 16);
    assert.equal(adapter.base_model_name_or_path, model);

    const command = [
      '--prompt',
      'What is 3 + 1?',
      '--chat',
      '--temperature',
      '0',
      '--max-tokens',
      '4',
      '--device',
      testDevice,
    ];
    const before = minisequence('generate', '--model', model, ...command);
    const adapted = minisequence('generate', '--model', model, '--adapter', outDir, ...command);
    assert.notEqual(adapted, before);
    const merged = newFolder();
    assert.match(minisequence('merge', '--model', model, '--adapter', outDir, '--out', merged), /merged 11 adapters/);
    assert.ok(minisequence('generate', '--model', merged, ...command).length > 0);
    copyFileSync(join(merged, 'tokenizer.json'), join(newFolder(), 'tokenizer.json')); // carried over
  }).timeout(120_000);
});
