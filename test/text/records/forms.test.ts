// What an object of a file becomes, by its fields: forms as the data sets of the Hub have them.
import assert from 'node:assert/strict';
import { parseJson } from '../../../lib/text/json.ts';
import { toRecord } from '../../../lib/text/records/forms.ts';

const read = (value: unknown, hasChatTemplate = true) => toRecord(value, 'a.jsonl:3', { hasChatTemplate });
const recordOf = (value: unknown, hasChatTemplate = true) => read(value, hasChatTemplate).record;
const user = (content: string) => ({ role: 'user', content });
const assistant = (content: string) => ({ role: 'assistant', content });

describe('toRecord', () => {
  it('takes null for absent', () => {
    assert.deepEqual(recordOf({ text: 'a', messages: null, prompt: null, completion: null }), { text: 'a' });
    const pair = { prompt: 'q', completion: 'a' };
    assert.deepEqual(recordOf({ ...pair, messages: null, text: null, tools: null }), pair);
    const messages = [{ role: 'user', content: 'hi', name: null, tool_calls: null, weight: null, train: null }];
    assert.deepEqual(recordOf({ messages, prompt: null }), { messages: [user('hi')] });
    const call = { role: 'assistant', content: null, tool_calls: [{ id: null }] };
    assert.deepEqual(recordOf({ messages: [call] }), { messages: [call] }, 'nulls within and the content stay');
  });

  it('keeps prompt and completion as they are, with or without a template', () => {
    for (const hasTemplate of [true, false]) {
      assert.deepEqual(recordOf({ prompt: 'q', completion: 'a' }, hasTemplate), { prompt: 'q', completion: 'a' });
    }
    const expected = { messages: [user('q'), assistant('a')], firstTarget: 1 };
    assert.deepEqual(recordOf({ prompt: [user('q')], completion: [assistant('a')] }), expected);
    assert.deepEqual(recordOf({ prompt: [user('q')], completion: 'a' }), expected);
  });

  for (const [prompt, answer] of [
    ['prompt', 'response'],
    ['question', 'answer'],
    ['input', 'output'],
    ['query', 'response'],
    ['instruction', 'response'],
  ] as const) {
    it(`reads { ${prompt}, ${answer} }: turns where there is a chat template`, () => {
      const value = { [prompt]: 'q', [answer]: 'a' };
      assert.deepEqual(recordOf(value), { messages: [user('q'), assistant('a')], firstTarget: 1 });
      if (prompt !== 'instruction') assert.deepEqual(recordOf(value, false), { prompt: 'q', completion: 'a' });
    });
  }

  it("reads Alpaca's records: turns, or without a template the texts of Alpaca", () => {
    const value = { instruction: 'Add.', input: '1 2', output: '3' };
    assert.deepEqual(recordOf(value), { messages: [user('Add.\n1 2'), assistant('3')], firstTarget: 1 });
    assert.deepEqual(recordOf({ ...value, input: '' }), { messages: [user('Add.'), assistant('3')], firstTarget: 1 });
    assert.deepEqual(recordOf({ ...value, instruction: '' }), {
      messages: [user('1 2'), assistant('3')],
      firstTarget: 1,
    });
    // As in the column `text` of tatsu-lab/alpaca.
    const intro = 'Below is an instruction that describes a task';
    const task = 'Write a response that appropriately completes the request.\n\n### Instruction:\nAdd.\n\n';
    assert.deepEqual(recordOf(value, false), {
      prompt: `${intro}, paired with an input that provides further context. ${task}### Input:\n1 2\n\n### Response:\n`,
      completion: '3',
    });
    const short = { prompt: `${intro}. ${task}### Response:\n`, completion: '3' };
    assert.deepEqual(recordOf({ ...value, input: '' }, false), short);
    assert.deepEqual(recordOf({ ...value, input: null }, false), short);
    const { record, notices } = read({ instruction: 'Add.', context: '1 2', response: '3', category: 'sum' });
    assert.deepEqual(record, { messages: [user('Add.\n1 2'), assistant('3')], firstTarget: 1 });
    assert.deepEqual(notices, ['a field that is not used: "category"']);
  });

  it('reads earlier turns and a system beside a question', () => {
    const value = { system: 's', instruction: 'c', output: 'd', history: [['a', 'b']] };
    const messages = [{ role: 'system', content: 's' }, user('a'), assistant('b'), user('c'), assistant('d')];
    assert.deepEqual(recordOf(value), { messages });
    const orca = { system_prompt: 's', question: 'q', response: 'a', id: 'niv.1' };
    const expected = { messages: [messages[0], user('q'), assistant('a')], firstTarget: 2 };
    assert.deepEqual(recordOf(orca), expected);
    assert.deepEqual(recordOf({ system: 's', prompt: 'q', completion: 'a' }), expected);
    assert.deepEqual(recordOf({ system: '', prompt: 'q', completion: 'a', history: [] }), {
      prompt: 'q',
      completion: 'a',
    });
  });

  it('reads ShareGPT, under from and value or role and content', () => {
    const expected = {
      messages: [{ role: 'system', content: 's' }, user('hi'), assistant('yo'), { role: 'tool', content: '1' }],
    };
    const from = [
      ['system', 's'],
      ['human', 'hi'],
      ['gpt', 'yo'],
      ['observation', '1'],
    ].map(([from, value]) => ({ from, value }));
    assert.deepEqual(recordOf({ conversations: from }), expected);
    assert.deepEqual(recordOf({ messages: from }), expected);
    assert.deepEqual(recordOf({ conversations: expected.messages }), expected);
    assert.deepEqual(recordOf({ system: 's', conversations: from.slice(1) }), expected);
    assert.deepEqual(recordOf({ system: 's', conversations: from }), expected, 'the same system twice');
    const call = { from: 'function_call', value: '{"name":"f","arguments":{"n":12345678901234567890}}' };
    assert.deepEqual(recordOf({ conversations: [call] }), {
      messages: [
        {
          role: 'assistant',
          content: '',
          tool_calls: [{ type: 'function', function: { name: 'f', arguments: { n: 12345678901234567890n } } }],
        },
      ],
    });
  });

  it("reads OpenAI's function_call and the role function as tool_calls and the role tool", () => {
    const call = { name: 'f', arguments: '{"a": 1}' };
    const tool_calls = [{ type: 'function', function: call }];
    const result = { role: 'tool', name: 'f', content: '1' };
    const expected = { messages: [{ role: 'assistant', content: null, tool_calls }, result] };
    const asked = { role: 'assistant', content: null, function_call: call };
    assert.deepEqual(recordOf({ messages: [asked, { ...result, role: 'function' }] }), expected);
    assert.deepEqual(recordOf({ messages: [{ ...asked, tool_calls: [] }, result] }), expected);
    assert.deepEqual(recordOf({ messages: [{ ...asked, tool_calls: null }, result] }), expected);
    assert.deepEqual(recordOf({ messages: [{ ...asked, function_call: JSON.stringify(call) }, result] }), expected);
    for (const nothing of [null, '', {}, { name: null, arguments: null }]) {
      assert.deepEqual(recordOf({ messages: [{ ...assistant('a'), function_call: nothing }] }), {
        messages: [assistant('a')],
      });
    }
    const functions = [{ name: 'f', parameters: {} }];
    const tools = [{ type: 'function', function: functions[0] }];
    for (const given of [functions, JSON.stringify(functions)]) {
      assert.deepEqual(read({ messages: [asked, result], functions: given }), {
        record: { ...expected, tools },
        notices: [],
      });
    }
    assert.deepEqual(read({ text: 'a', functions: ['main'] }).notices, ['a field that is not used: "functions"']);
    const nameless = [{ role: 'function', content: '1' }];
    assert.deepEqual(recordOf({ messages: nameless }), { messages: nameless });
  });

  it('takes the text of a message from value or content, whichever is filled', () => {
    for (const sides of [{ value: 'a' }, { content: 'a' }, { value: 'a', content: 'a' }]) {
      for (const empty of [{}, { value: null, content: null }, { value: '', content: '' }]) {
        for (const name of [{ from: 'gpt' }, { role: 'assistant' }]) {
          const messages = [{ ...name, ...empty, ...sides }];
          assert.deepEqual(recordOf({ messages }), { messages: [assistant('a')] }, JSON.stringify(messages));
        }
      }
    }
    const scored = [{ ...assistant('a'), value: 0.5 }];
    assert.deepEqual(recordOf({ messages: scored }), { messages: scored }, 'a value that is no text is another field');
    assert.deepEqual(recordOf({ messages: [{ from: 'gpt', value: '', content: null }] }), {
      messages: [assistant('')],
    });
  });

  it('notices a label that does not say which answers are wanted', () => {
    const notices = ['a field that is not used: "label"'];
    for (const label of ['sports', 2, 'truely', ['a']]) {
      assert.deepEqual(read({ prompt: 'q', completion: 'a', label }).notices, notices);
      assert.deepEqual(read({ messages: [user('hi')], label }).notices, notices);
    }
  });

  for (const label of [true, false, 'True', 'false', ' FALSE ', 0, 1, '0', '1', parseJson('1.0')]) {
    it(`refuses a label that says whether an answer is wanted: ${JSON.stringify(label)}`, () => {
      const expected = /^a\.jsonl:3: label says which answers are wanted: preference records cannot be trained on$/;
      const refused = (value: object) => assert.throws(() => recordOf(value), { message: expected });
      refused({ prompt: 'q', completion: 'a', label });
      refused({ instruction: 'q', input: '', output: 'a', label });
      if (!['0', '1', '1.0'].includes(String(label))) refused({ messages: [assistant('a')], label });
    });
  }

  it('knows the common names of roles in any case, and keeps the others', () => {
    const names = [
      'Human',
      'prompter',
      'GPT',
      'chatgpt',
      'Assistant',
      'model',
      'bot',
      'System',
      'tool',
      'ipython',
      'critic',
    ];
    const { messages } = recordOf({ messages: names.map((role) => ({ role, content: '' })) }) as {
      messages: { role: string }[];
    };
    const a = 'assistant';
    assert.deepEqual(
      messages.map(({ role }) => role),
      ['user', 'user', a, a, a, a, a, 'system', 'tool', 'ipython', 'critic'],
    );
  });

  it('takes from weight, train, training and loss whether a message is trained on', () => {
    const given = [
      { weight: 0 },
      { weight: 1 },
      { train: false },
      { training: true },
      { loss: false },
      parseJson('{"weight":0.0}') as object,
    ];
    const messages = given.map((one) => ({ role: 'assistant', content: 'a', ...one }));
    const expected = [false, true, false, true, false, false].map((isTrained) => ({ ...assistant('a'), isTrained }));
    assert.deepEqual(recordOf({ messages }), { messages: expected });
  });

  it('hands tools, documents and variables on, tools also as text, arguments as they stand', () => {
    const tool = { type: 'function', function: { name: 'f' } };
    const messages = [
      { role: 'assistant', content: '', tool_calls: [{ function: { name: 'f', arguments: '{"a": 1}' } }] },
    ];
    const context = { tools: [tool], documents: [{ title: 't' }] };
    assert.deepEqual(recordOf({ messages, ...context, chat_template_kwargs: { x: true } }), {
      messages,
      ...context,
      variables: { x: true },
    });
    assert.deepEqual(recordOf({ messages, tools: JSON.stringify([tool]) }), { messages, tools: [tool] });
    assert.deepEqual(recordOf({ messages, tools: [JSON.stringify(tool)] }), { messages, tools: [tool] });
    assert.deepEqual(recordOf({ messages: JSON.stringify(messages) }), { messages });
  });

  it('keeps the order of the fields of a message', () => {
    const { messages } = recordOf({ messages: [{ content: 'a', train: true, role: 'gpt', z: 1, b: 2 }] }) as {
      messages: object[];
    };
    assert.deepEqual(Object.keys(messages[0]!), ['content', 'role', 'z', 'b', 'isTrained']);
  });

  it('prefers conversations to pairs to texts, and notices what is left over', () => {
    const all = { messages: [user('hi')], prompt: 'hi', text: 't', id: 5, empty: '', none: null, list: [] };
    const { record, notices } = read(all);
    assert.deepEqual(record, { messages: [user('hi')] });
    assert.deepEqual(
      notices,
      ['prompt', 'text', 'id'].map((name) => `a field that is not used: "${name}"`),
    );
    const alpaca = read({ instruction: 'i', input: '', output: 'o', text: 'Below …' });
    assert.deepEqual(alpaca.record, { messages: [user('i'), assistant('o')], firstTarget: 1 });
    assert.deepEqual(alpaca.notices, ['a field that is not used: "text"']);
  });

  const message = { role: 'assistant', content: 'a' };
  const failures: [string, unknown, RegExp][] = [
    [
      'no object',
      [{ text: 'a' }],
      /a\.jsonl:3: must be an object, got \[\{"text":"a"\}\]; a list of records is for \.json/,
    ],
    ['null', null, /a\.jsonl:3: must be an object, got null/],
    ['no form', { txet: 'a', n: 1 }, /: must have \{ text \}, .* got txet, n$/],
    ['nothing', {}, /got no field$/],
    ['an answer that is null', { prompt: 'q', completion: null }, /: completion is null$/],
    ['a prompt that is null', { question: null, answer: 'a' }, /: question is null$/],
    [
      'an answer that is a number',
      { prompt: 'q', completion: 7 },
      /: completion must be text or a list of messages, got 7$/,
    ],
    ['a text that is a list', { text: ['a'] }, /: text must be text, got \["a"\]$/],
    ['two answers', { prompt: 'q', response: 'a', answer: 'b' }, /: has response and answer, which mean the same/],
    ['two prompts', { prompt: 'q', question: 'q', answer: 'b' }, /: has prompt and question/],
    ['two conversations', { messages: [message], conversations: [message] }, /: has messages and conversations/],
    ['preferences', { prompt: 'q', chosen: 'a', rejected: 'b' }, /: has chosen and rejected: preference records/],
    [
      'preferences after a question',
      { conversations: [user('q')], chosen: assistant('a'), rejected: assistant('b') },
      /: has chosen and rejected: preference records/,
    ],
    [
      "OpenAI's preferences",
      { input: { messages: [user('q')] }, preferred_output: [assistant('a')], non_preferred_output: [assistant('b')] },
      /: has preferred_output and non_preferred_output: preference records/,
    ],
    ['marked answers', { messages: [user('q'), assistant('a')], kto_tag: false }, /: kto_tag says which answers/],
    [
      'tools in two forms',
      { messages: [user('q')], tools: [{ name: 'f' }], functions: [{ name: 'f' }] },
      /: has tools and functions, which mean the same/,
    ],
    ['images', { messages: [message], images: ['a.png'] }, /: images cannot be trained on/],
    ['an empty conversation', { messages: [] }, /: messages is an empty list$/],
    ['messages that are text', { messages: 'hi' }, /: messages is text that is not JSON/],
    ['messages that are an object', { messages: message }, /: messages must be a list, got \{/],
    ['a message that is text', { messages: ['hi'] }, /: messages\[0\] must be \{ role, content \}, got "hi"$/],
    ['no role', { messages: [message, { content: 'a' }] }, /: messages\[1\]: role is missing$/],
    ['a role that is a number', { messages: [{ role: 1 }] }, /: messages\[0\]: role must be text, got 1$/],
    [
      'another weight',
      { messages: [{ ...message, weight: 0.5 }] },
      /: messages\[0\]: weight must be 0 or 1, got 0\.5$/,
    ],
    ['a weight that is true', { messages: [{ ...message, weight: true }] }, /: weight must be 0 or 1, got true$/],
    ['a weight that is text', { messages: [{ ...message, weight: '1' }] }, /: weight must be 0 or 1, got "1"$/],
    ['train that is a number', { messages: [{ ...message, train: 0 }] }, /: train must be true or false, got 0$/],
    [
      'two that disagree',
      { messages: [{ ...message, weight: 1, train: false }] },
      /: weight and train say different things/,
    ],
    [
      'value and content',
      {
        conversations: [
          { from: 'gpt', value: 'a' },
          { from: 'gpt', value: 'a', content: 'b' },
        ],
      },
      /: conversations\[1\]: value and content say different things: "a" and "b"$/,
    ],
    [
      'value and content beside a role',
      { messages: [{ ...message, value: 'b' }] },
      /: messages\[0\]: value and content say different things: "b" and "a"$/,
    ],
    [
      'a call with another content',
      { conversations: [{ from: 'function_call', value: '{"name":"f"}', content: 'b' }] },
      /: conversations\[0\]: value and content say different things/,
    ],
    [
      'two forms of calls',
      { messages: [{ ...message, function_call: { name: 'f' }, tool_calls: [{ function: { name: 'g' } }] }] },
      /: messages\[0\]: has function_call and tool_calls, which mean the same/,
    ],
    [
      'a function_call without a name',
      { messages: [{ ...message, function_call: { arguments: '{}' } }] },
      /: messages\[0\]: function_call must be \{ name, arguments \}, got \{"arguments":"\{\}"\}$/,
    ],
    [
      'a function_call that is no JSON',
      { messages: [{ ...message, function_call: 'f()' }] },
      /: function_call is not JSON/,
    ],
    ['parts of a message', { messages: [{ ...message, train_detail: [{}] }] }, /: train_detail is not supported/],
    [
      'calls that are none',
      { messages: [{ ...message, tool_calls: {} }] },
      /: messages\[0\]: tool_calls must be a list, got \{\}$/,
    ],
    [
      'a call that is no JSON',
      { conversations: [{ from: 'function_call', value: 'f()' }] },
      /: conversations\[0\]: value is not JSON/,
    ],
    [
      'two systems',
      { system: 'a', messages: [{ role: 'system', content: 'b' }] },
      /: system and a message of the role system/,
    ],
    ['tools that are an object', { messages: [message], tools: { name: 'f' } }, /: tools must be a list, got/],
    [
      'variables that are a list',
      { messages: [message], chat_template_kwargs: [] },
      /: chat_template_kwargs must be an object/,
    ],
    [
      'history of something else',
      { prompt: 'q', response: 'a', history: [['a']] },
      /: history\[0\] must be \[question, answer\]/,
    ],
  ];
  for (const [what, value, expected] of failures) {
    it(`names what is wrong: ${what}`, () => {
      assert.throws(
        () => recordOf(value),
        (error: Error) => {
          assert.ok(error.message.startsWith('a.jsonl:3: '), error.message);
          assert.match(error.message, expected);
          return true;
        },
      );
    });
  }
});
