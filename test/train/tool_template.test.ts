// A model's template for conversations with tools stays with what a run saves: what was trained on is what is rendered later.
import assert from 'node:assert/strict';
import { existsSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { runMerge } from '../../lib/cli/merge.ts';
import { CHAT_TEMPLATE_FILE, TOOL_TEMPLATE_FILE } from '../../lib/io/model_folder.ts';
import { loadTokenizer } from '../../lib/text/tokenizer.ts';
import { newFolder, run, tinyModelFolder } from '../support/runs.ts';

const [PLAIN, TOOLS] = [
  '{% for m in messages %}{{ tone }}{{ m.content }}{% endfor %}',
  '{{ tone }}{{ tools | tojson }}{{ messages | length }}',
];
const messages = [{ role: 'user', content: 'hi' }];
const tools = [{ name: 'clock' }];

/** A model with both templates in files. */
async function model(): Promise<string> {
  const folder = await tinyModelFolder({ vocab_size: 1024 }, { tokenizerFrom: 'test/fixtures/tokenizer' });
  writeFileSync(join(folder, CHAT_TEMPLATE_FILE), PLAIN);
  mkdirSync(join(folder, 'additional_chat_templates'));
  writeFileSync(join(folder, TOOL_TEMPLATE_FILE), TOOLS);
  return folder;
}

/** What a folder makes of the conversation without tools and with them. */
async function prompts(folder: string): Promise<string[]> {
  const { chatTemplate } = await loadTokenizer(join(folder, 'tokenizer.json'));
  return [await chatTemplate!.prompt({ messages }), await chatTemplate!.prompt({ messages, tools })];
}

const options = (path: string, outDir = newFolder()) => {
  const files = [join(newFolder(), 'a.txt')];
  writeFileSync(files[0]!, 'The quick brown fox jumps over the lazy dog.\n'.repeat(20));
  return { model: { path }, tokenizer: undefined, data: { files }, sequenceLength: 32, maxSteps: 1, outDir };
};

describe("a model's template for tools", () => {
  it('is saved with the model and its checkpoints', async () => {
    const path = await model();
    const settings = { ...options(path), checkpoint: { everySteps: 1 } };
    const { outDir } = await run(settings);
    const checkpoints = join(outDir, 'checkpoints');
    for (const folder of [outDir, join(checkpoints, readdirSync(checkpoints)[0]!)]) {
      assert.equal(readFileSync(join(folder, TOOL_TEMPLATE_FILE), 'utf8'), TOOLS);
      assert.deepEqual(await prompts(folder), ['hi', '[{"name": "clock"}]1']);
    }
    const damaged = join(checkpoints, readdirSync(checkpoints)[0]!, TOOL_TEMPLATE_FILE);
    writeFileSync(damaged, TOOLS.toUpperCase());
    await assert.rejects(run({ ...settings, outDir }, { resume: true }), new RegExp(`${damaged}: is damaged`));
  });

  it("is in the one that is saved with a run's variables, and not beside it, also where an earlier run left it", async () => {
    const path = await model();
    const { outDir } = await run(options(path));
    assert.ok(existsSync(join(outDir, TOOL_TEMPLATE_FILE)));
    const { data, ...rest } = options(path, outDir);
    await run({ ...rest, data: { ...data, templateVariables: { tone: 'dry ' } } });
    assert.ok(!existsSync(join(outDir, 'additional_chat_templates')));
    assert.deepEqual(await prompts(outDir), ['dry hi', 'dry [{"name": "clock"}]1']);
  });

  it('goes with a model that an adapter is merged with, unless the adapter has templates of its own', async () => {
    const path = await model();
    const { outDir: adapter } = await run({ ...options(path), lora: { rank: 2 } });
    const out = newFolder();
    await runMerge({ model: path, adapter, out });
    assert.deepEqual(await prompts(out), ['hi', '[{"name": "clock"}]1']);
    writeFileSync(join(adapter, CHAT_TEMPLATE_FILE), 'own');
    await runMerge({ model: path, adapter, out });
    assert.deepEqual(await prompts(out), ['own', 'own']);
    mkdirSync(join(adapter, 'additional_chat_templates'));
    writeFileSync(join(adapter, TOOL_TEMPLATE_FILE), 'own tools');
    await runMerge({ model: path, adapter, out });
    assert.deepEqual(await prompts(out), ['own', 'own tools']);
    const [chatTemplate, toolTemplate] = [CHAT_TEMPLATE_FILE, TOOL_TEMPLATE_FILE].map((name) => join(adapter, name));
    const tokenizer = await loadTokenizer(join(path, 'tokenizer.json'), { chatTemplate, toolTemplate });
    assert.equal(await tokenizer.chatTemplate!.prompt({ messages, tools }), 'own tools');
    assert.ok(tokenizer.files.includes(toolTemplate!));
  });

  it('is neither written nor removed through a link in the folder that is saved into', async () => {
    const path = await model();
    const [victim, outDir] = [newFolder(), newFolder()];
    const mine = join(victim, 'tool_use.jinja');
    for (const templateVariables of [undefined, { tone: 'dry ' }]) {
      writeFileSync(mine, 'mine');
      const { data, ...rest } = options(path, outDir);
      const link = join(outDir, 'additional_chat_templates');
      if (!existsSync(link)) symlinkSync(victim, link);
      await run({ ...rest, data: { ...data, templateVariables } });
      assert.equal(readFileSync(mine, 'utf8'), 'mine');
      assert.equal(existsSync(join(outDir, TOOL_TEMPLATE_FILE)), templateVariables === undefined);
    }
  });
});
