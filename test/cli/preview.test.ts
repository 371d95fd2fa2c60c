// minisequence preview: all tokens are seen, what is left out is told, nothing stays behind.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdir, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { env } from 'node:process';
import { text } from 'node:stream/consumers';
import { setTimeout } from 'node:timers/promises';
import { startCommand } from '../support/command.ts';

let folder: string;
before(async () => {
  folder = await mkdtemp(join(tmpdir(), 'preview-'));
});
after(() => rm(folder, { recursive: true }));

const TEMPLATE =
  '{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}';

async function configOf(name: string, data: string): Promise<string> {
  const [file, template, path] = [`${name}.jsonl`, 't.jinja', `${name}.json`].map((one) => join(folder, one));
  await writeFile(file!, data);
  await writeFile(template!, TEMPLATE);
  const model = {
    model_type: 'llama',
    hidden_size: 16,
    intermediate_size: 32,
    num_hidden_layers: 1,
    num_attention_heads: 2,
  };
  const config = {
    model: { config: { ...model, rms_norm_eps: 1e-6, max_position_embeddings: 64 } },
    tokenizer: new URL('../fixtures/tokenizer/tokenizer.json', import.meta.url).pathname,
    data: { files: [file], chatTemplate: template, packing: false },
    sequenceLength: 64,
    device: 'cpu',
  };
  await writeFile(path!, JSON.stringify(config));
  return path!;
}

const conversation = (...roles: string[]) =>
  `${JSON.stringify({ messages: roles.map((role, i) => ({ role, content: i === 0 ? 'hi' : 'yo' })) })}\n`;

async function preview(path: string): Promise<{ code: number; out: string; errors: string }> {
  const child = startCommand('preview', '--config', path);
  const [[code], out, errors] = await Promise.all([once(child, 'close'), text(child.stdout), text(child.stderr)]);
  return { code, out, errors };
}

describe('minisequence preview', () => {
  it('shows special tokens, and reports conversations without an answer', async () => {
    const data =
      conversation('user', 'narrator') + conversation('user', 'assistant') + conversation('narrator', 'user');
    const { code, out, errors } = await preview(await configOf('some', data));
    assert.equal(code, 0, errors);
    assert.match(
      errors,
      /nothing to train on, which is left out \(in all 30 of 38 tokens\): 2 times, first at .*some\.jsonl:1\n/,
    );
    assert.match(out, /\n<\|user\|>hi<\|end\|><\|assistant\|>\[yo<\|end\|>\]\n/);
    assert.match(
      errors,
      /without an answer to train on \(roles: narrator, user\): 2 times, first at .*some\.jsonl:1\n/,
    );
  });

  it('explains why there is nothing to train on', async () => {
    const { code, errors } = await preview(await configOf('none', conversation('user', 'narrator')));
    assert.equal(code, 1);
    assert.match(errors, /something to train on; .*roles: narrator, user.*none\.jsonl:1/);
  });

  it('makes its files unreadable for others, and leaves none behind when it is stopped', async () => {
    const path = await configOf('long', `{"text": ${JSON.stringify('The quick brown fox. '.repeat(400_000))}}\n`);
    const temporary = join(folder, 'tmp');
    await mkdir(temporary);
    const { TMPDIR } = env;
    env.TMPDIR = temporary;
    const child = startCommand('preview', '--config', path);
    env.TMPDIR = TMPDIR ?? '';
    if (TMPDIR === undefined) delete env.TMPDIR;
    const made = async () => (await readdir(temporary)).filter((name) => name.startsWith('minisequence-'));
    while ((await made()).length === 0 && child.exitCode === null) await setTimeout(10);
    const [name] = await made();
    assert.equal((await stat(join(temporary, name!))).mode & 0o777, 0o700);
    child.kill('SIGTERM');
    assert.deepEqual(await once(child, 'close'), [null, 'SIGTERM']);
    assert.deepEqual(await made(), []);
  });
});
