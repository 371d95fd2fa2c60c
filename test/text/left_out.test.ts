// What a record says and its documents do not is told: once for each kind, and only where it is so.
import assert from 'node:assert/strict';
import { ChatTemplate } from '../../lib/text/chat_template.ts';
import type { Conversation, Message } from '../../lib/text/records/record.ts';
import { SpecialTokens } from '../../lib/text/targets/special.ts';
import { type TargetOptions, Targets } from '../../lib/text/targets/targets.ts';
import { special, type TemplateName, templateOf } from '../support/chat_templates.ts';

const user = (content: string): Message => ({ role: 'user', content });
const answer = (content: unknown, fields: object = {}): Message => ({ role: 'assistant', content, ...fields });
const calls = (name: string) => ({ tool_calls: [{ type: 'function', function: { name, arguments: {} } }] });
/** Users and assistants alone. */
const TWO_ROLES =
  "{% for m in messages %}{% if m.role == 'user' %}<|user|>{{ m.content }}{% elif m.role == 'assistant' %}<|assistant|>{{ m.content }}<|end|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}";

async function shown(
  template: TemplateName | ChatTemplate,
  given: Message[] | Conversation,
  tokens = special,
  options: TargetOptions = {},
) {
  const conversation = Array.isArray(given) ? { messages: given } : given;
  const told: string[] = [];
  const targets = new Targets(typeof template === 'string' ? templateOf(template) : template, tokens, options);
  const documents = await targets.documents(conversation, (what) => told.push(what));
  return { told, text: documents.map(({ text }) => text).join() };
}

describe('what a chat template leaves out is reported', () => {
  it('messages by their roles', async () => {
    const messages = ['system', 'developer', 'tool'].map((role) => ({ role, content: 'hi' }));
    const { told } = await shown(new ChatTemplate(TWO_ROLES), [user('hi'), ...messages, ...messages, answer('hi')]);
    assert.deepEqual(
      told.filter((what) => what.startsWith('a message')),
      ['system', 'developer', 'tool'].map((role) => `a message of role ${role} that the chat template leaves out`),
    );
  });

  it('no message that stands in a prompt alone, nor one that is written as JSON', async () => {
    const rule = { role: 'system', content: 'be' };
    const turns = [user('hi'), answer('yo'), user('ho'), answer('ya')];
    assert.deepEqual((await shown('llama2', [rule, ...turns])).told, []);
    const { told } = await shown('mistral', [rule, ...turns]);
    assert.deepEqual(told, [
      'a conversation with a document for each answer, as the chat template rewrites earlier turns',
    ]);
    const json = TWO_ROLES.replace('<|user|>{{ m.content }}', '<|user|>{{ m.content | tojson }}');
    assert.deepEqual((await shown(new ChatTemplate(json), [user('a "b"\nc'), answer('yo')])).told, []);
  });

  it('tools and documents, also where a call has the name of the tool', async () => {
    const tools = [{ type: 'function', function: { name: 'clock' } }];
    const messages = [user('hi'), answer('', calls('clock')), { role: 'tool', content: 'noon' }, answer('noon')];
    const called =
      '{% for c in m.tool_calls or [] %}{{ c.function.name }}{{ c.function.arguments | tojson }}{% endfor %}';
    const template = TWO_ROLES.replace('{{ m.content }}<|end|>', `{{ m.content }}${called}<|end|>`).replace(
      "== 'user'",
      "in ['user', 'tool']",
    );
    const { told, text } = await shown(new ChatTemplate(template), { messages, tools, documents: [{ text: 'd' }] });
    assert.match(text, /clock/);
    assert.deepEqual(told, ['tools that the chat template leaves out', 'documents that the chat template leaves out']);
    assert.deepEqual((await shown('chatml', { messages, tools })).told, []);
  });

  it('answers where the template marks what is generated', async () => {
    const lost = answer('yo', { ...calls('clock'), reasoning_content: 'because' });
    assert.deepEqual((await shown('tags', [user('hi'), lost])).told, [
      'an answer whose tool calls the chat template leaves out',
      'an answer whose thoughts the chat template leaves out',
    ]);
    assert.deepEqual((await shown('tags', [user('hi'), answer('yo')])).told, []);
  });

  it('calls whose names are parts of special tokens or of the text', async () => {
    const token = '<|end_of_sentence|>';
    const tokens = new SpecialTokens([{ id: 0, content: token, special: true }], 0);
    const template = new ChatTemplate(TWO_ROLES.replace('<|end|>', token));
    for (const message of [answer('', calls('end')), answer('the clock', calls('clock'))]) {
      const { told } = await shown(template, [user('hi'), message], tokens);
      assert.deepEqual(told, ['an answer whose tool calls the chat template leaves out']);
    }
  });

  it('parts of contents that are thoughts, which do not become text of the answer', async () => {
    const parts = [
      { type: 'thinking', thinking: 'because' },
      { type: 'text', text: 'yo' },
    ];
    for (const name of ['phi3', 'parts', 'tags'] as const) {
      const { told, text } = await shown(name, [user('hi'), answer(parts)]);
      assert.ok(text.includes('yo') && !text.includes('because'), text);
      assert.deepEqual(told, ['an answer whose thoughts the chat template leaves out']);
    }
    const both = "{% for p in m.content %}{{ p.text or '[' + p.thinking + ']' }}{% endfor %}";
    const knowing = new ChatTemplate(TWO_ROLES.replaceAll('{{ m.content }}', both));
    const { told, text } = await shown(knowing, [user('hi'), answer(parts)]);
    assert.equal(text, '<|user|>hi<|assistant|>[because]yo<|end|>');
    assert.deepEqual(told, []);
  });

  it('where prompts are trained on too', async () => {
    const all = { trainOnPrompts: true };
    const tools = [{ type: 'function', function: { name: 'clock' } }];
    const lost = [{ role: 'system', content: 'be kind' }, user('hi'), answer('yo', calls('noon')), answer('')];
    const { told } = await shown(new ChatTemplate(TWO_ROLES), { messages: lost, tools }, special, all);
    assert.deepEqual(told, [
      'an answer whose tool calls the chat template leaves out',
      'an answer that is empty',
      'a message of role system that the chat template leaves out',
      'tools that the chat template leaves out',
    ]);
    const turns = [user('hi'), answer('<think>because</think>yo'), user('ho'), answer('ya')];
    assert.deepEqual((await shown('qwen3', turns, special, all)).told, [
      'an answer whose thoughts the chat template leaves out',
    ]);
    assert.deepEqual((await shown('chatml', [user('hi'), answer('yo')], special, all)).told, []);
  });

  it('fields of messages that the template does not read: some mean that an answer is not wanted', async () => {
    const messages = [user('hi'), answer('yo', { mask: true, eval: 'bad' }), user('ho'), answer('ya', { mask: false })];
    for (const options of [{}, { trainOnPrompts: true }]) {
      assert.deepEqual((await shown('chatml', messages, special, options)).told, [
        'a field of messages that the chat template does not read: "mask"',
        'a field of messages that the chat template does not read: "eval"',
      ]);
    }
    const reading = new ChatTemplate(TWO_ROLES.replace('<|end|>', '{{ m.mask }}{{ m.eval }}<|end|>'));
    assert.deepEqual((await shown(reading, messages)).told, []);
    const usual = [user('hi'), answer('yo', { name: 'bo' })];
    assert.deepEqual((await shown('chatml', usual)).told, []);
  });

  it('answers that end twice: by their own text and by the template', async () => {
    const turns = (text: string) => ['a', 'b', 'c'].flatMap((name) => [user(name), answer(`${name} ${text}`)]);
    const twice = (own: string, added: string) =>
      `an answer whose text ends with ${own}, to which the chat template adds ${added}: it ends twice`;
    for (const options of [{}, { trainOnPrompts: true }]) {
      const toldOf = async (name: TemplateName, text: string) =>
        (await shown(name, turns(text), special, options)).told.filter((what) => what.endsWith('ends twice'));
      assert.deepEqual(await toldOf('chatml', 'yo<|im_end|>'), Array(3).fill(twice('<|im_end|>', '<|im_end|>')));
      assert.deepEqual(await toldOf('chatml', 'yo</s>\n'), Array(3).fill(twice('</s>', '<|im_end|>')));
      assert.deepEqual(await toldOf('llama2', 'yo </s>'), Array(3).fill(twice('</s>', '</s>')));
      assert.deepEqual(await toldOf('tags', 'yo<|end|>'), Array(3).fill(twice('<|end|>', '<|end|>')));
      assert.deepEqual(await toldOf('endsBetween', 'yo<|end|>'), Array(2).fill(twice('<|end|>', '<|end|>')));
      assert.deepEqual(await toldOf('headersOnly', 'yo</s>'), [], 'the template ends no turn');
      assert.deepEqual(await toldOf('chatml', 'write <|im_end|> at the end'), []);
    }
  });

  it('answers that are empty', async () => {
    for (const name of ['phi3', 'tags'] as const) {
      assert.deepEqual((await shown(name, [user('hi'), answer('')])).told, ['an answer that is empty']);
    }
  });
});
