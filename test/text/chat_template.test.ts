// Chat templates: where they are found, what they are given, and in which form.
import assert from 'node:assert/strict';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ChatTemplate, readChatTemplate } from '../../lib/text/chat_template.ts';
import type { Conversation, Message } from '../../lib/text/records/record.ts';
import { findTurnEnd } from '../../lib/text/targets/turn_end.ts';
import { special } from '../support/chat_templates.ts';

const HI: Message[] = [{ role: 'user', content: 'hi' }];
const prompt = (template: string, conversation: Partial<Conversation> = {}, config = {}, settings = {}) =>
  new ChatTemplate(template, config, settings).prompt({ messages: HI, ...conversation });

describe('a chat template', () => {
  it('is given what transformers gives it', async () => {
    const names = 'bos_token eos_token pad_token tools documents add_generation_prompt'.split(' ');
    const shown = names.map((name) => `{{ ${name} is defined }}:{{ ${name} }}`).join(' ');
    const config = { bos_token: { content: '<s>' }, eos_token: '</s>', pad_token: null };
    assert.equal(await prompt(shown, {}, config), 'True:<s> True:</s> False: True:None True:None True:True');
    assert.equal(
      await prompt('{{ tools[0].name }} {{ documents[0].text }}', {
        tools: [{ name: 'clock' }],
        documents: [{ text: 'd' }],
      }),
      'clock d',
    );
  });

  it("takes a record's variables before those of the run, and neither before its messages", async () => {
    const settings = { variables: { tone: 'kind', mood: 'calm', messages: [] } };
    const variables = { tone: 'stern', add_generation_prompt: false };
    assert.equal(
      await prompt(
        '{{ tone }} {{ mood }} {{ messages[0].content }} {{ add_generation_prompt }}',
        { variables },
        {},
        settings,
      ),
      'stern calm hi True',
    );
  });

  it('writes the day that it is told', async () => {
    const settings = { date: new Date('2024-07-26T12:00:00') };
    assert.equal(await prompt("{{ strftime_now('%d %b %Y') }}", {}, {}, settings), '26 Jul 2024');
  });

  it('does not see whether a message is trained on', async () => {
    const messages = [{ role: 'user', content: 'hi', isTrained: false }];
    assert.equal(await prompt('{{ messages[0] | length }}', { messages }), '2');
  });

  const called = (parameters: unknown, content: string | null = null): Message[] => [
    ...HI,
    { role: 'assistant', content, tool_calls: [{ function: { name: 'clock', arguments: parameters } }] },
  ];
  const MESSAGES = '{% for m in messages %}{{ m.content or "" }}{% for c in m.tool_calls or [] %}';
  const END = '{% endfor %}{% endfor %}';

  it('gets the arguments of calls as objects where it writes them as JSON', async () => {
    const template = `${MESSAGES}{{ c.function.arguments | tojson }}${END}`;
    assert.equal(await prompt(template, { messages: called('{"zone": "GMT"}') }), 'hi{"zone": "GMT"}');
    assert.equal(await prompt(template, { messages: called({ zone: 'GMT' }) }), 'hi{"zone": "GMT"}');
    assert.equal(
      await prompt(template, { messages: called('{"id": 1234567890123456789, "x": 2.0}') }),
      'hi{"id": 1234567890123456789, "x": 2.0}',
    );
    assert.equal(await prompt(template, { messages: called('no JSON') }), 'hi"no JSON"');
  });

  it('gets the arguments of calls as JSON where it puts them into its text', async () => {
    const template = `${MESSAGES}{{ 'call ' + c.function.arguments }}${END}`;
    assert.equal(
      await prompt(template, { messages: called({ zone: 'GMT', n: [1] }) }),
      'hicall {"zone": "GMT", "n": [1]}',
    );
    assert.equal(await prompt(template, { messages: called('{"zone":"GMT"}') }), 'hicall {"zone":"GMT"}');
  });

  it('writes no None where a call has no content', async () => {
    const template =
      '{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}{{ c.function.name }}{% endfor %}{% endfor %}';
    assert.equal(await prompt(template, { messages: called({}) }), 'hiclock');
  });

  it('leaves content null where calls are written only then, and their arguments as JSON', async () => {
    const template =
      "{% for m in messages %}{% if m['role'] == 'user' %}{{ '<U>' + m['content'] }}{% endif %}" +
      "{% if m['role'] == 'assistant' and m['content'] is none %}{% for c in m['tool_calls'] %}" +
      "{{ '<A>' + c['function']['name'] + '\\n' + c['function']['arguments'] }}{% endfor %}{% endif %}" +
      "{% if m['role'] == 'assistant' and m['content'] is not none %}{{ '<A>' + m['content'] }}{% endif %}{% endfor %}";
    const json = '{"zone":"GMT"}';
    assert.equal(await prompt(template, { messages: called(json) }), `<U>hi<A>clock\n${json}`);
    assert.equal(await prompt(template, { messages: called({ zone: 'GMT' }) }), '<U>hi<A>clock\n{"zone": "GMT"}');
  });

  const parts = (...texts: string[]) => texts.map((text) => ({ type: 'text', text }));
  const twoParts: Message[] = [{ role: 'user', content: parts('a', 'b') }];

  it('gets parts where it reads parts, and text where it reads text', async () => {
    assert.equal(
      await prompt('{% for m in messages %}{{ m.content | trim }}{% endfor %}', { messages: twoParts }),
      'ab',
    );
    const either =
      '{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}{% for p in m.content %}<{{ p.text }}>{% endfor %}{% endif %}{% endfor %}';
    assert.equal(await prompt(either, { messages: twoParts }), '<a><b>');
    assert.equal(await prompt(either), 'hi');
    const first = "{% for m in messages %}{{ m.content[0]['text'] }}{% endfor %}";
    assert.equal(await prompt(first), 'hi');
    assert.equal(await prompt(first, { messages: twoParts }), 'ab');
  });

  it('refuses contents that are no text, by message and field', async () => {
    const refused = (content: unknown, role = 'user') =>
      prompt('{{ messages[0].content }}', { messages: [{ role, content }] });
    await assert.rejects(refused(null), /messages\[0\]: content is null/);
    await assert.rejects(refused(undefined), /messages\[0\]: content is missing/);
    await assert.rejects(refused(7), /messages\[0\]: content must be text, got number/);
    await assert.rejects(refused({ a: 1 }), /messages\[0\]: content must be text, got object/);
    await assert.rejects(
      refused([{ type: 'text', text: null }]),
      /messages\[0\]: content\[0\]: text must be text, got null/,
    );
    await assert.rejects(refused([{ type: 'image', url: 'x' }]), /messages\[0\]: content\[0\]: is of type "image"/);
  });
});

describe('readChatTemplate', () => {
  let folder: string;
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'template-'));
  });
  afterEach(() => rm(folder, { recursive: true }));
  const tools = [{ name: 'clock' }];
  const shown = async (config: object, conversation: Partial<Conversation> = {}) =>
    (await readChatTemplate(folder, config))?.prompt({ messages: HI, ...conversation });

  it('takes the file before the configuration, and the template for tools where there are tools', async () => {
    const stored = [
      { name: 'default', template: 'default' },
      { name: 'tool_use', template: 'tools' },
    ];
    assert.equal(await shown({}), undefined);
    assert.equal(await shown({ chat_template: 'one' }), 'one');
    assert.equal(await shown({ chat_template: stored }), 'default');
    assert.equal(await shown({ chat_template: stored }, { tools }), 'tools');
    await writeFile(join(folder, 'chat_template.jinja'), 'file');
    assert.equal(await shown({ chat_template: stored }, { tools }), 'file');
    await mkdir(join(folder, 'additional_chat_templates'));
    await writeFile(join(folder, 'additional_chat_templates', 'tool_use.jinja'), 'file for tools');
    assert.equal(await shown({}, { tools }), 'file for tools');
    assert.equal(await shown({}), 'file');
  });

  it('refuses conversations without tools where no template is the default', async () => {
    const refusal = /none of the model's chat templates is named default \(tool_use\)/;
    const chat_template = [{ name: 'tool_use', template: 'tools' }];
    assert.equal(await shown({ chat_template }, { tools }), 'tools');
    await assert.rejects(shown({ chat_template }), refusal);
    await mkdir(join(folder, 'additional_chat_templates'));
    await writeFile(join(folder, 'additional_chat_templates', 'tool_use.jinja'), 'file for tools');
    assert.equal(await shown({ chat_template: 'one' }, { tools }), 'file for tools');
    await assert.rejects(shown({ chat_template: 'one' }), refusal);
  });

  it('finds forms and the end of a turn of the template for tools by itself', async () => {
    const template = "{% for m in messages %}{{ m.content }}{{ '<|end|>' if m.role == 'assistant' }}{% endfor %}";
    const toolTemplate = `{{ tools | tojson }}{% for m in messages %}{% if m.content is string %}{{ m.content }}
{%- else %}{% for part in m.content %}({{ part.text }}){% endfor %}{% endif %}
{%- for call in m.tool_calls %}{{ '!' + call.function.arguments }}{% endfor %}
{%- if m.role == 'assistant' %}</s>{% endif %}{% endfor %}`;
    const both = new ChatTemplate(template, {}, { toolTemplate });
    const content = ['a', 'b'].map((text) => ({ type: 'text', text }));
    const call = { type: 'function', function: { name: 'clock', arguments: { zone: 'UTC' } } };
    const messages = [
      { role: 'user', content },
      { role: 'assistant', content: 'c', tool_calls: [call] },
    ];
    for (const one of [both, new ChatTemplate(both.saved())]) {
      assert.equal(await one.prompt({ messages }), 'abc<|end|>');
      assert.equal(await one.prompt({ messages, tools }), '[{"name": "clock"}](a)(b)c!{"zone": "UTC"}</s>');
      assert.equal((await findTurnEnd(one, special, false)).token, '<|end|>');
      assert.equal((await findTurnEnd(one, special, true)).token, '</s>');
    }
  });

  it('names the file in errors', async () => {
    await writeFile(join(folder, 'chat_template.jinja'), "{{ raise_exception('no') }}");
    await assert.rejects(shown({}), /chat_template\.jinja:1: no/);
  });
});
