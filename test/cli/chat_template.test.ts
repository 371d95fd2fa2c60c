// A run's own chat template stays with what it has trained: generate and merge go on with it.
import assert from 'node:assert/strict';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Decoder, decoderConfig, saveModel } from '../../lib/index.ts';
import { runCommand } from '../support/command.ts';
import { openTestDevice, testDevice } from '../support/devices.ts';
import { newFolder, tinyLlama } from '../support/runs.ts';

const TEMPLATE =
  "{{ bos_token }}{% if tools %}{{ tools[0].name }}{% endif %}{{ tone or '' }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}";

async function tinyModel(): Promise<string> {
  const folder = newFolder();
  using device = openTestDevice();
  using made = new Decoder(decoderConfig({ ...tinyLlama, vocab_size: 1024 }), { device }).initialize(1);
  await saveModel(made, folder, { tokenizerFrom: 'test/fixtures/tokenizer' });
  return folder;
}

describe("a run's chat template", () => {
  it('is saved with adapters and checkpoints, and generate and merge use it', async () => {
    const model = await tinyModel();
    const [folder, outDir, merged] = [newFolder(), newFolder(), newFolder()];
    const [chats, template] = [join(folder, 'chats.jsonl'), join(folder, 't.jinja')];
    const messages = [
      { role: 'user', content: 'hi' },
      { role: 'assistant', content: 'yo' },
    ];
    writeFileSync(chats, `${JSON.stringify({ messages })}\n`.repeat(16));
    writeFileSync(template, TEMPLATE);
    const set = [`model.path=${model}`, `data.files=[${chats}]`, `data.chatTemplate=${template}`, `outDir=${outDir}`];
    const run = [
      'sequenceLength=32',
      'maxSteps=2',
      'schedule.warmupSteps=0',
      `device=${testDevice}`,
      'checkpoint.everySteps=2',
    ];
    runCommand(['train', '--config', 'examples/fine_tune.yaml', '--set', ...set, ...run]);
    const saved = (...path: string[]) => readFileSync(join(...path, 'chat_template.jinja'), 'utf8');
    assert.equal(saved(outDir), TEMPLATE);
    assert.equal(saved(outDir, 'checkpoints', readdirSync(join(outDir, 'checkpoints'))[0]!), TEMPLATE);
    runCommand(['merge', '--model', model, '--adapter', outDir, '--out', merged]);
    assert.equal(saved(merged), TEMPLATE);

    const chat = ['--prompt', 'hi', '--temperature', '0', '--max-tokens', '3', '--device', testDevice, '--json'];
    const generated = (options: string[]): number[] => {
      const lines = runCommand(['generate', '--model', model, '--adapter', outDir, ...options])
        .trim()
        .split('\n');
      return lines.map((line) => JSON.parse(line).logProbability);
    };
    const generate = (...options: string[]) => generated([...options, ...chat]);
    const plain = (text: string) => generated(chat.with(1, text));
    const expected = plain('<s><|user|>hi<|end|><|assistant|>');
    assert.deepEqual(generate('--chat'), expected);
    const tools = ['--tools', '[{"name": "clock"}]', '--template-variables', '{"tone": "kind"}'];
    assert.deepEqual(generate('--chat', ...tools), plain('<s>clockkind<|user|>hi<|end|><|assistant|>'));
    assert.notDeepEqual(generate('--chat', ...tools), expected);
  });

  it("is saved with the run's variables, which generate uses by default", async () => {
    const model = await tinyModel();
    const [folder, outDir] = [newFolder(), newFolder()];
    const chats = join(folder, 'chats.jsonl');
    const messages = [
      { role: 'user', content: 'hi' },
      { role: 'assistant', content: 'yo' },
    ];
    writeFileSync(chats, `${JSON.stringify({ messages })}\n`.repeat(16));
    writeFileSync(join(model, 'chat_template.jinja'), TEMPLATE);
    const set = [`model.path=${model}`, `data.files=[${chats}]`, 'data.templateVariables={tone: kind}'];
    const run = [
      `outDir=${outDir}`,
      'sequenceLength=32',
      'maxSteps=1',
      'schedule.warmupSteps=0',
      `device=${testDevice}`,
    ];
    runCommand(['train', '--config', 'examples/fine_tune.yaml', '--set', ...set, ...run]);
    const generated = (prompt: string, ...options: string[]): number[] => {
      const common = ['--prompt', prompt, '--temperature', '0', '--max-tokens', '3', '--device', testDevice, '--json'];
      const lines = runCommand(['generate', '--model', model, '--adapter', outDir, ...common, ...options]);
      return lines
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line).logProbability);
    };
    const dated = join(folder, 'dated.jinja');
    writeFileSync(dated, "{{ bos_token }}{{ strftime_now('%d %b %Y') }}{{ messages[0].content }}");
    assert.deepEqual(
      generated('hi', '--chat', '--chat-template', dated, '--template-date', '2024-07-26'),
      generated('<s>26 Jul 2024hi'),
    );
    const trained = generated('<s>kind<|user|>hi<|end|><|assistant|>');
    assert.deepEqual(generated('hi', '--chat'), trained);
    assert.notDeepEqual(generated('hi', '--chat', '--template-variables', '{"tone": "dry"}'), trained);
  });
});
