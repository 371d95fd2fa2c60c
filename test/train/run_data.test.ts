// What a run trains and validates on: parts that share no conversation.
import assert from 'node:assert/strict';
import { symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseConfig } from '../../lib/index.ts';
import { ChatTemplate } from '../../lib/text/chat_template.ts';
import { loadTokenizer, type Tokenizer } from '../../lib/text/tokenizer.ts';
import { openRunData } from '../../lib/train/run_data.ts';
import { TEMPLATES } from '../support/chat_templates.ts';
import { newFolder, textFile, tinyRun } from '../support/runs.ts';

const bytes = await loadTokenizer('bytes');
/** Drops earlier thoughts: three answers are three documents. */
const rewriting: Tokenizer = { ...bytes, chatTemplate: new ChatTemplate(TEMPLATES.qwen3) };

function conversation(name: string): object {
  const messages = [1, 2, 3].flatMap((turn) => [
    { role: 'user', content: `${name} asks ${turn}` },
    { role: 'assistant', content: `<think>why ${turn}</think>answer ${turn}` },
  ]);
  return { messages };
}

function chatsFile(names: readonly string[]): string {
  const path = join(newFolder(), 'chats.jsonl');
  writeFileSync(path, names.map((name) => `${JSON.stringify(conversation(name))}\n`).join(''));
  return path;
}

/** Names of the conversations in each part, and how many sequences it has. */
async function partsOf(files: string[], seed: number, names: readonly string[]) {
  const data = { files, validation: { fraction: 0.3 }, packing: false };
  const opened = await openRunData(parseConfig(tinyRun({ data, seed, sequenceLength: 512 })), rewriting, 256);
  try {
    const parts = [];
    for (const part of [opened.training, opened.validation!]) {
      let text = '';
      for (let i = 0; i < part.length; i++) text += Buffer.from((await part.batch([i])).inputs).toString();
      parts.push({ length: part.length, names: names.filter((name) => text.includes(`${name} asks`)) });
    }
    return parts as [(typeof parts)[0], (typeof parts)[0]];
  } finally {
    await opened.close();
  }
}

describe('data of a run', () => {
  it('are split by conversations, also where a template makes several documents of one', async () => {
    const names = ['ann', 'bob', 'cyd', 'dan', 'eve', 'fay'];
    const file = chatsFile(names);
    const held = new Set<string>();
    for (let seed = 0; seed < 3; seed++) {
      const [training, validation] = await partsOf([file], seed, names);
      assert.deepEqual([training.length, validation.length], [12, 6], 'three documents a conversation');
      assert.equal(validation.names.length, 2);
      assert.deepEqual([...training.names, ...validation.names].sort(), names);
      for (const name of validation.names) held.add(name);
    }
    assert.ok(held.size > 2, 'drawn by the seed');
  });

  it('are not split where they are one conversation', async () => {
    await assert.rejects(partsOf([chatsFile(['ann'])], 0, []), /data\.validation: one conversation cannot be split/);
  });

  it('are reported if a file is read twice, or both trained and validated on', async () => {
    const [file, other] = [textFile('abcdefgh'.repeat(64)), textFile('hgfedcba'.repeat(64))];
    const link = join(newFolder(), 'link.txt');
    symlinkSync(file, link);
    const notesOf = async (files: string[], held: string[]) => {
      const data = { files, validation: { files: held } };
      const { notes, close } = await openRunData(parseConfig(tinyRun({ data })), bytes, 256);
      await close();
      return notes.map(({ what, first }) => `${what}: ${first}`);
    };
    assert.deepEqual(await notesOf([file, link, other], [link]), [
      `a file that is named more than once, and read each time: ${link}`,
      `a file that is validated on and trained on: ${link}`,
    ]);
    assert.deepEqual(await notesOf([file], [other]), []);
  });

  it('are split by sequences where they are one text', async () => {
    const data = { files: [textFile('abcdefgh'.repeat(64))], validation: { fraction: 0.25 } };
    const { training, validation, close } = await openRunData(parseConfig(tinyRun({ data })), bytes, 256);
    assert.deepEqual([training.length, validation!.length], [6, 2]);
    await close();
  });
});
