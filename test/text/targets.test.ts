// What of a conversation is trained on: with each style of template, what generation would write after its prompt, and nothing else.
import assert from 'node:assert/strict';
import fc from 'fast-check';
import { ChatTemplate } from '../../lib/text/chat_template.ts';
import type { Conversation, Message } from '../../lib/text/records/record.ts';
import type { MarkedText } from '../../lib/text/targets/marked_text.ts';
import { type TargetOptions, Targets } from '../../lib/text/targets/targets.ts';
import { special, TEMPLATES, type TemplateName, templateOf } from '../support/chat_templates.ts';

const user = (content: string): Message => ({ role: 'user', content });
const answer = (content: string, fields: object = {}): Message => ({ role: 'assistant', content, ...fields });
const TWO = [user('hi'), answer('yo'), user('ho'), answer('ya')];
const THOUGHTS = [user('hi'), answer('<think>\na\n</think>\n\nyo'), user('ho'), answer('<think>\nb\n</think>\n\nya')];

/** Documents with their targets in ⟦ ⟧, and what is told. */
async function shown(
  template: TemplateName | ChatTemplate,
  conversation: Conversation | Message[],
  options: TargetOptions = {},
): Promise<{ documents: string[]; told: string[] }> {
  const targets = new Targets(typeof template === 'string' ? templateOf(template) : template, special, options);
  const told: string[] = [];
  const given = Array.isArray(conversation) ? { messages: conversation } : conversation;
  const documents = await targets.documents(given, (what) => told.push(what));
  return { documents: documents.map(bracketed), told };
}

function bracketed({ text, targets }: MarkedText): string {
  let shown = '';
  let done = 0;
  for (const [begin, end] of targets) {
    shown += `${text.slice(done, begin)}⟦${text.slice(begin, end)}⟧`;
    done = end;
  }
  return shown + text.slice(done);
}

async function expectDocuments(
  template: TemplateName | ChatTemplate,
  conversation: Conversation | Message[],
  expected: string[],
  options: TargetOptions = {},
): Promise<void> {
  assert.deepEqual((await shown(template, conversation, options)).documents, expected);
}

describe('targets of a template that keeps what it has written', () => {
  const SYSTEM = '<|im_start|>system\nbe kind<|im_end|>\n';

  it('are the answers with the tokens that end them, not the line ends after these', () =>
    expectDocuments('chatml', TWO, [
      `${SYSTEM}<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n⟦yo<|im_end|>⟧\n<|im_start|>user\nho<|im_end|>\n<|im_start|>assistant\n⟦ya<|im_end|>⟧\n`,
    ]));

  it('begin where the prompt ends, before the space that the template writes', () =>
    expectDocuments(
      'llama2',
      [{ role: 'system', content: 'be' }, ...TWO],
      ['<s>[INST] <<SYS>>be<</SYS>>hi [/INST]⟦ yo </s>⟧<s>[INST] ho [/INST]⟦ ya </s>⟧'],
    ));

  it('are as the template trims them', () =>
    expectDocuments(
      'llama3',
      [user(' hi '), answer('\n  yo \n')],
      [
        '<s><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n⟦yo<|eot_id|>⟧',
      ],
    ));

  it('leave out a header that the template writes at the end of all', () =>
    expectDocuments('alwaysHeader', TWO, [
      '<s><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n⟦yo<|eot_id|>⟧' +
        '<|start_header_id|>user<|end_header_id|>\n\nho<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n⟦ya<|eot_id|>⟧' +
        '<|start_header_id|>assistant<|end_header_id|>\n\n',
    ]));

  it('have the header where a prompt has none', () =>
    expectDocuments('neverHeader', TWO.slice(0, 2), [
      '<|im_start|>user\nhi<|im_end|>\n⟦<|im_start|>assistant\nyo<|im_end|>⟧\n',
    ]));

  it('end with the end of a turn where the end of text stands after the last', () =>
    expectDocuments('phi3', TWO, [
      '<|user|>\nhi<|end|>\n<|assistant|>\n⟦yo<|end|>⟧\n<|user|>\nho<|end|>\n<|assistant|>\n⟦ya<|end|>⟧\n</s>',
    ]));

  it('have the end of a turn that is written where another follows, also after the last', () =>
    expectDocuments('endsBetween', TWO, [
      '<|user|>hi<|end|>\n<|assistant|>⟦yo<|end|>⟧\n<|user|>ho<|end|>\n<|assistant|>⟦ya<|end|>⟧',
    ]));

  it('have the header of the next question where nothing else ends an answer, and at last the end of text', () =>
    expectDocuments('headersOnly', TWO, ['<|user|>hi<|assistant|>⟦yo<|user|>⟧ho<|assistant|>⟦ya</s>⟧']));

  it('are a greeting before any prompt, without the header', async () => {
    const greeting = [answer('welcome'), user('hi'), answer('yo')];
    await expectDocuments('chatml', greeting, [
      `${SYSTEM}<|im_start|>assistant\n⟦welcome<|im_end|>⟧\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n⟦yo<|im_end|>⟧\n`,
    ]);
    await expectDocuments('zephyr', greeting, ['<|assistant|>\n⟦welcome</s>⟧<|user|>\nhi</s><|assistant|>⟦\nyo</s>⟧']);
    await assert.rejects(shown('llama2', greeting), /roles must alternate/);
  });

  it('are calls of tools', () => {
    const call = { type: 'function', function: { name: 'clock', arguments: '{"zone": "GMT"}' } };
    const messages = [
      user('time'),
      { role: 'assistant', content: null, tool_calls: [call] },
      { role: 'tool', content: 'noon' },
      answer('it is noon'),
    ];
    return expectDocuments('chatml', { messages, tools: [{ name: 'clock' }] }, [
      '<|im_start|>system\n[{"name": "clock"}]<|im_end|>\n<|im_start|>user\ntime<|im_end|>\n<|im_start|>assistant\n' +
        '⟦<tool_call>\n{"name": "clock", "arguments": {"zone": "GMT"}}\n</tool_call><|im_end|>⟧\n' +
        '<|im_start|>user\n<tool_response>noon</tool_response><|im_end|>\n<|im_start|>assistant\n⟦it is noon<|im_end|>⟧\n',
    ]);
  });
});

describe('targets of a template that rewrites', () => {
  it('are in a document for each answer, after what generation sees', async () => {
    const { documents, told } = await shown('qwen3', THOUGHTS);
    assert.deepEqual(documents, [
      '<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n⟦<think>\na\n</think>\n\nyo<|im_end|>⟧\n',
      '<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nyo<|im_end|>\n<|im_start|>user\nho<|im_end|>\n' +
        '<|im_start|>assistant\n⟦<think>\nb\n</think>\n\nya<|im_end|>⟧\n',
    ]);
    assert.match(told.join(), /rewrites earlier turns/);
  });

  it('share a document where one goes on from the other', () => {
    const call = { type: 'function', function: { name: 'clock', arguments: {} } };
    const messages = [
      user('time'),
      answer('', { reasoning_content: 'a', tool_calls: [call] }),
      { role: 'tool', content: 'noon' },
      answer('noon', { reasoning_content: 'b' }),
    ];
    return expectDocuments('qwen3', messages, [
      '<|im_start|>user\ntime<|im_end|>\n<|im_start|>assistant\n⟦<think>\na\n</think>\n\n<tool_call>\n{"name": "clock", "arguments": {}}\n</tool_call><|im_end|>⟧\n' +
        '<|im_start|>user\n<tool_response>noon</tool_response><|im_end|>\n<|im_start|>assistant\n⟦<think>\nb\n</think>\n\nnoon<|im_end|>⟧\n',
    ]);
  });

  it('begin after thoughts that the prompt has closed', () =>
    expectDocuments('qwen3', { messages: [user('hi'), answer('yo')], variables: { enable_thinking: false } }, [
      '<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n⟦yo<|im_end|>⟧\n',
    ]));

  it('have the thoughts of the record where the prompt opens them and the template drops them', () =>
    expectDocuments('r1', THOUGHTS, [
      '<s><|user|>hi<|assistant|><think>\n⟦a\n</think>\n\nyo</s>⟧',
      '<s><|user|>hi<|assistant|>\n\nyo</s><|user|>ho<|assistant|><think>\n⟦b\n</think>\n\nya</s>⟧',
    ]));

  it('follow the prompt that opens thoughts also without any, which is told', async () => {
    const { documents, told } = await shown('r1', TWO.slice(0, 2));
    assert.deepEqual(documents, ['<s><|user|>hi<|assistant|><think>\n⟦yo</s>⟧']);
    assert.match(told.join(), /without thoughts, where the chat template's prompt opens them/);
  });

  it('follow a prompt that has the system text elsewhere', () =>
    expectDocuments(
      'mistral',
      [{ role: 'system', content: 'be' }, ...TWO],
      ['<s>[INST] be\n\nhi[/INST]⟦ yo</s>⟧', '<s>[INST] hi[/INST] yo</s>[INST] be\n\nho[/INST]⟦ ya</s>⟧'],
    ));
});

describe('targets', () => {
  it('are what the template marks as generated', async () => {
    await expectDocuments('tags', TWO, [
      '<|user|>hi<|end|><|assistant|>⟦yo<|end|>⟧<|user|>ho<|end|><|assistant|>⟦ya<|end|>⟧',
    ]);
    const messages = [user('hi'), answer('yo', { isTrained: false }), user('ho'), answer('ya')];
    await expectDocuments('tags', messages, [
      '<|user|>hi<|end|><|assistant|>yo<|end|><|user|>ho<|end|><|assistant|>⟦ya<|end|>⟧',
    ]);
  });

  it('that the template marks without their ends are told of', async () => {
    const template = new ChatTemplate(
      '{% for m in messages %}{% if m.role == "user" %}<|user|>{{ m.content }}{% else %}<|assistant|>{% generation %}{{ m.content }}{% endgeneration %}<|end|>{% endif %}{% endfor %}',
    );
    const { documents, told } = await shown(template, TWO.slice(0, 2));
    assert.deepEqual(documents, ['<|user|>hi<|assistant|>⟦yo⟧<|end|>']);
    assert.deepEqual(told, ['an answer whose end the chat template does not mark as generated']);
  });

  it('of calls that the template leaves out are told of', async () => {
    const call = { type: 'function', function: { name: 'clock', arguments: {} } };
    const { told } = await shown('phi3', [user('hi'), answer('wait', { tool_calls: [call] })]);
    assert.deepEqual(told, ['an answer whose tool calls the chat template leaves out']);
  });

  it('are not in answers that are not to be trained on, nor before the first that is', async () => {
    const read = '<|user|>\nhi<|end|>\n<|assistant|>\nyo<|end|>\n<|user|>\nho<|end|>\n<|assistant|>\n⟦ya<|end|>⟧\n</s>';
    await expectDocuments('phi3', TWO.with(1, answer('yo', { isTrained: false })), [read]);
    await expectDocuments('phi3', { messages: TWO, firstTarget: 2 }, [read]);
    await expectDocuments('phi3', TWO, [read], { trainOnLastAnswer: true });
    await expectDocuments('phi3', TWO.slice(0, 2), ['⟦<|user|>\nhi<|end|>\n<|assistant|>\nyo<|end|>\n</s>⟧'], {
      trainOnPrompts: true,
    });
  });

  it('are all with trainOnPrompts, but for answers that are not to be trained on', async () => {
    const options = { trainOnPrompts: true };
    const first = TWO.with(1, answer('yo', { isTrained: false }));
    await expectDocuments(
      'phi3',
      first,
      ['⟦<|user|>\nhi<|end|>\n<|assistant|>\n⟧yo<|end|>⟦\n<|user|>\nho<|end|>\n<|assistant|>\nya<|end|>\n</s>⟧'],
      options,
    );
    await expectDocuments('endless', TWO, ['⟦USER: hi\nASSISTANT: yo\nUSER: ho\nASSISTANT: ya\n</s>⟧'], options);
    await expectDocuments(
      'tags',
      first,
      ['⟦<|user|>hi<|end|><|assistant|>⟧yo<|end|>⟦<|user|>ho<|end|><|assistant|>ya<|end|>⟧'],
      options,
    );
    const rule = { role: 'system', content: 'be' };
    await assert.rejects(shown('mistral', [rule, ...first], options), /messages\[2\].*weight: 0.*data.trainOnPrompts/);
  });

  it('are none where only the last answer is asked for, and that is not to be trained on', async () => {
    const last = TWO.with(3, answer('ya', { isTrained: false }));
    for (const conversation of [{ messages: last }, { messages: TWO, firstTarget: 4 }]) {
      const { documents, told } = await shown('phi3', conversation, { trainOnLastAnswer: true });
      assert.ok(documents.length === 1 && !documents[0]!.includes('⟦'), documents.join());
      assert.deepEqual(told, ['a conversation without an answer to train on (roles: assistant, user)']);
    }
  });

  it('are told to be none, with the roles', async () => {
    const { documents, told } = await shown('phi3', [user('hi'), { role: 'narrator', content: 'yo' }]);
    assert.deepEqual(documents, ['<|user|>\nhi<|end|>\n<|narrator|>\nyo<|end|>\n</s>']);
    assert.deepEqual(told, ['a conversation without an answer to train on (roles: narrator, user)']);
  });

  it('are told not to be in what an unknown role says', async () => {
    const { documents, told } = await shown('endsBetween', [
      user('hi'),
      { role: 'critic', content: 'no' },
      answer('yo'),
    ]);
    assert.deepEqual(documents, ['<|user|>hi<|end|>\n<|critic|>no<|end|>\n<|assistant|>⟦yo<|end|>⟧']);
    assert.deepEqual(told, ["a conversation with the role 'critic', which is not trained on"]);
  });

  it('have the end of text after the last answer of a template without ends, which is told', async () => {
    const { documents, told } = await shown('endless', TWO);
    assert.deepEqual(documents, ['USER: hi\nASSISTANT:⟦ yo\n⟧USER: ho\nASSISTANT:⟦ ya\n</s>⟧']);
    assert.match(told.join(), /no token that ends it/);
  });

  it('come from contents in parts, in the form that the template reads', async () => {
    const parts = (...texts: string[]) => texts.map((text) => ({ type: 'text', text }));
    const messages: Message[] = [
      { role: 'user', content: parts('one', 'two') },
      { role: 'assistant', content: parts('three') },
    ];
    const expected = ['<|user|>onetwo<|end|><|assistant|>⟦three<|end|>⟧'];
    await expectDocuments('parts', messages, expected);
    await expectDocuments('parts', [user('onetwo'), answer('three')], expected);
    await expectDocuments('phi3', messages, ['<|user|>\nonetwo<|end|>\n<|assistant|>\n⟦three<|end|>⟧\n</s>']);
    const image = { role: 'user', content: [{ type: 'image_url', image_url: 'x' }] };
    await assert.rejects(shown('phi3', [image, answer('a')]), /messages\[0\]: content\[0\].*image_url/);
    await assert.rejects(
      shown('phi3', [user('a'), { role: 'assistant', content: null }]),
      /messages\[1\]: content is null/,
    );
  });

  it('of long conversations cost few renderings, and are those of short ones', async () => {
    const template = templateOf('chatml');
    const render = template.rendered.bind(template);
    let characters = 0;
    template.rendered = async (...given) => {
      const rendered = await render(...given);
      characters += rendered.text.length;
      return rendered;
    };
    const messages = Array.from({ length: 200 }, (_, i) => (i % 2 ? answer : user)(`word ${i % 7} `.repeat(20)));
    const { documents } = await shown(template, messages);
    assert.equal(documents.length, 1);
    assert.ok(characters < 6 * documents[0]!.length, `${characters} characters for ${documents[0]!.length}`);
    assert.equal(documents[0]!.match(/assistant\n⟦(word \d ){20}<\|im_end\|>⟧\n/g)?.length, 100);
  });
});

describe('targets of a long conversation', () => {
  const turns = (question: (i: number) => string, said: (i: number) => string) =>
    Array.from({ length: 9 }, (_, i) => [user(question(i)), answer(said(i))]).flat();

  it('follow prompts that differ with what is asked', async () => {
    const template = new ChatTemplate(
      '{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}{% if messages[-1].content | length > 9 %}<|system|>{% endif %}<|assistant|>{% endif %}',
    );
    const messages = turns(
      (i) => (i > 0 ? 'a long question' : 'short'),
      () => 'yo',
    );
    const { documents } = await shown(template, messages);
    assert.equal(documents.length, 8); // the first two answers go on from one another
    for (const one of documents) assert.match(one, /a long question<\|end\|><\|system\|><\|assistant\|>⟦yo<\|end\|>⟧$/);
  });

  it('are found one by one where an answer is rewritten', async () => {
    const template = new ChatTemplate(
      "{% for m in messages %}<|{{ m.role }}|>{{ m.content if loop.last else m.content.replace('secret ', '') }}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}",
    );
    const messages = turns(
      () => 'hi',
      (i) => (i === 4 ? 'a secret word' : 'a word'),
    );
    const { documents } = await shown(template, messages);
    assert.deepEqual(
      documents.map((one) => one.split('⟦').length - 1),
      [5, 4],
    );
    assert.ok(documents[0]!.endsWith('⟦a secret word<|end|>⟧'));
  });
});

describe('targets of any conversation', () => {
  const word = fc.constantFrom(
    'hi',
    ' yes ',
    'the same',
    'the same',
    '  if x:\n\n',
    '<b>',
    'é😀',
    '[/INST]',
    'assistant',
    '',
  );
  const thoughts = fc.constantFrom('', '', '<think>\nwhy\n</think>\n\n', '<think>why</think>');
  const turn = fc.tuple(word, thoughts, word, fc.boolean());
  const conversations = fc
    .tuple(fc.array(turn, { minLength: 1, maxLength: 7 }), fc.boolean())
    .map(([turns, hasSystem]) => [
      ...(hasSystem ? [{ role: 'system', content: 'rule' }] : []),
      ...turns.flatMap(([question, thought, said, isTrained]) => [
        user(question),
        answer(thought + said, { isTrained }),
      ]),
    ]);

  for (const name of Object.keys(TEMPLATES).filter((one) => one !== 'tags') as TemplateName[]) {
    it(`follow the prompts of ${name}, and end`, async () => {
      const template = templateOf(name);
      const targets = new Targets(template, special);
      await fc.assert(
        fc.asyncProperty(conversations, async (messages) => {
          const trained = messages.flatMap((one, i) => (one.role === 'assistant' && one.isTrained ? [i] : []));
          if (name === 'gemma' && messages[0]!.role === 'system') return;
          const prepared = await template.prepare({ messages });
          const documents = await targets.documents({ messages }, () => {});
          const found = documents.flatMap(({ text, targets }) => targets.map((span) => ({ text, span })));
          assert.equal(found.length, trained.length);
          for (const [k, { text, span }] of found.entries()) {
            const before = prepared.messages.slice(0, trained[k]!);
            const prompt = (await template.rendered({ ...prepared, messages: before }, true)).text;
            assert.equal(text.slice(0, span[0]), prompt);
            const said = text.slice(...span);
            const { content } = messages[trained[k]!]!;
            assert.ok(said.includes(String(content).split('</think>').at(-1)!.trim()), `${said} lacks ${content}`);
            if (name === 'endless') continue;
            const end = special.endOf(said);
            assert.ok(end !== null && said.indexOf(end) + end.length === said.length, `${said} ends otherwise`);
          }
        }),
        { numRuns: 25 },
      );
    });
  }
});
