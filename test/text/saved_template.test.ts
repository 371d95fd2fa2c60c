// A saved template renders, without the run's variables, what the run's template renders with them.
import assert from 'node:assert/strict';
import { ChatTemplate } from '../../lib/text/chat_template.ts';
import type { Conversation } from '../../lib/text/records/record.ts';
import { isVariableName, literal } from '../../lib/text/saved_template.ts';
import { TEMPLATES } from '../support/chat_templates.ts';

const tokens = { bos_token: '<s>', eos_token: '</s>' };
const turns = [
  { role: 'user', content: 'hi' },
  { role: 'assistant', content: 'yo' },
  { role: 'user', content: 'ho' },
];
const tools = [{ type: 'function', function: { name: 'clock' } }];
const conversations: Conversation[] = [{ messages: turns }, { messages: turns, tools }, { messages: turns, tools: [] }];
const SHOWING = '{{ tone }} {{ days | tojson }} {{ eos_token }} {{ documents | tojson }} {{ tools | tojson }}';
const variables = {
  enable_thinking: false,
  tone: 'a "b"\n\'c\' \\n %} }} é 😀 \u2028 \u0001',
  days: [1, -2.5, 1e30, true, null, { 'a b': [] }],
  eos_token: '<end>',
  documents: [{ text: 'd' }],
  tools: [{ name: 'default' }],
};

describe('a saved template', () => {
  const templates = { ...TEMPLATES, showing: SHOWING, lines: `\n  {% if true %}\n  ${SHOWING}  \n  {% endif %}\n  \n` };
  for (const [name, text] of Object.entries(templates)) {
    it(`renders what was trained on: ${name}`, async () => {
      for (const toolTemplate of [null, `\n  {{ eos_token }}tools:\n  ${SHOWING}\n`, TEMPLATES.chatml]) {
        const given = new ChatTemplate(text, tokens, { variables, toolTemplate });
        const saved = new ChatTemplate(given.saved(), tokens);
        for (const conversation of conversations) {
          for (const isPrompt of [false, true]) {
            const [expected, actual] = [given, saved].map(
              async (one) => (await one.rendered(conversation, isPrompt)).text,
            );
            assert.equal(await actual, await expected);
          }
        }
      }
    });
  }

  it('is the template itself where nothing is set', () => {
    for (const text of Object.values(TEMPLATES)) assert.equal(new ChatTemplate(text, tokens).saved(), text);
  });

  it('lets others set its variables, and a later run save its own', async () => {
    const first = new ChatTemplate('{{ tone }}', tokens, { variables: { tone: 'kind' } }).saved();
    const later = new ChatTemplate(first, tokens, { variables: { tone: 'dry' } });
    const conversation = { messages: turns };
    assert.equal((await later.rendered(conversation)).text, 'dry');
    assert.equal((await new ChatTemplate(later.saved()).rendered(conversation)).text, 'dry');
    assert.equal((await later.rendered({ ...conversation, variables: { tone: 'warm' } })).text, 'warm');
  });

  it('writes values as Jinja does, and names that it can read', () => {
    assert.equal(literal({ a: [null, true, 0.5, 'b"'] }), '{"a": [none, true, 0.5, "b\\""]}');
    for (const value of [Number.NaN, undefined, 1n]) assert.throws(() => literal(value), /cannot be written as JSON/);
    assert.deepEqual(['enable_thinking', 'a-b', '1a', 'none', 'in', '_x'].filter(isVariableName), [
      'enable_thinking',
      '_x',
    ]);
  });
});
