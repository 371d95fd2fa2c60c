// Templates of strangers: what they may not use up, and what they may not reach.
import assert from 'node:assert/strict';
import { ChatTemplate } from '../../lib/text/chat_template.ts';
import { JinjaTemplate } from '../../lib/text/jinja/template.ts';

const textOf = async (template: string, given: Record<string, unknown> = {}) =>
  (await new JinjaTemplate(template, 'x.jinja').render(given)).text;

/** What `body` makes of x, many times over. */
const repeated = (start: string, body: string, after = '') =>
  `{% set ns = namespace(x=${start}) %}{% for i in range(90000) %}{% set ns.x = ${body} %}{% endfor %}${after}`;

describe('the budget of a template', () => {
  const refused: [what: string, template: string, message: RegExp][] = [
    ['a range', '{{ range(300000000) | length }}', /range of more than 100000 items/],
    ['a loop', '{% for i in range(1000000000) %}{% endfor %}', /range of more than/],
    [
      'loops in loops',
      '{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}',
      /too many steps/,
    ],
    ['an expression in a loop', `{% for i in range(99999) %}{{ 1${'+1'.repeat(1000)} }}{% endfor %}`, /too many steps/],
    ['a text that doubles', repeated("'ab'", 'ns.x ~ ns.x'), /too (long a|much) text/],
    ['output', "{% for i in range(99999) %}{{ 'a' * 9999 }}{% endfor %}", /too much text/],
    ['a repeated text', "{{ 'ab' * 10000000000 }}", /too much text/],
    ['a repeated list', '{{ [1] * 10000000000 }}', /too many steps/],
    ['a list that doubles', repeated('[1]', 'ns.x + ns.x'), /too many steps/],
    ['lists of the same lists, printed', repeated('[1]', '[ns.x, ns.x] if i < 60 else ns.x', '{{ ns.x }}'), /too m/],
    [
      'lists of the same lists, as JSON',
      repeated('[1]', '[ns.x, ns.x] if i < 60 else ns.x', '{{ ns.x|tojson }}'),
      /too m/,
    ],
    [
      'lists of the same lists, compared',
      `${repeated('[1]', '[ns.x, ns.x] if i < 60 else ns.x')}{% set y = ns.x %}${repeated('[1]', '[ns.x, ns.x] if i < 60 else ns.x', '{{ ns.x == y }}')}`,
      /too many steps/,
    ],
    [
      'tuples of the same tuples as a key',
      repeated('(1,)', '(ns.x, ns.x) if i < 60 else ns.x', '{{ {ns.x: 1} }}'),
      /too large for a key/,
    ],
    [
      'a chain of filters',
      repeated('[1]', "ns.x | map('string')", '{{ ns.x | list }}'),
      /nested too deeply|too many steps/,
    ],
    ['a chain of lists', repeated('[1]', '[ns.x]', '{{ ns.x }}'), /nested too deeply/],
    ['powers', '{{ 9 ** 9 ** 9 ** 9 ** 99 }}', /too large an int/],
    ['products', repeated('3', 'ns.x * ns.x'), /too large an int/],
    ['a width', "{{ 'a'.ljust(10000000000) }}", /too much text/],
    ['a width of %', "{{ '%10000000000d' % 5 }}", /too much text/],
    ['a width of format', "{{ '{:10000000000}'.format(5) }}", /too much text/],
    ['a precision', "{{ '%.100000000f' % 5 }}", /a precision of 100000000/],
    ['an indent', "{{ 'a\\nb' | indent(10000000000) }}", /too much text/],
    ['tabs', "{{ ('\\t' * 1000).expandtabs(100000000) }}", /too much text/],
    ['replacing nothing', "{{ ('a' * 100000).replace('', 'b' * 100000) }}", /too much text/],
    ['a wide glue', "{{ ('a' * 100000).join('b' * 100000) }}", /too much text/],
    ['a wide relation of links', "{{ ('www.a.de ' * 10000) | urlize(rel='b' * 100000) }}", /too much text/],
    ['a wide glue of wrapped lines', "{{ ('a ' * 100000) | wordwrap(1, true, 'b' * 100000) }}", /too much text/],
    ['slices', '{{ [1] | slice(1000000000) | list }}', /too many steps/],
    ['a filled batch', '{{ [1] | batch(1000000000, 1) | list }}', /too many steps/],
    ['a macro that calls itself', '{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}', /more than 200 levels|too deeply/],
    [
      'a macro that calls itself twice',
      '{% macro m(n) %}{% if n %}{{ m(n-1) }}{{ m(n-1) }}{% endif %}{% endmacro %}{{ m(60) }}',
      /too many steps/,
    ],
    [
      'a loop that calls itself',
      '{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}',
      /more than 200 levels|too deeply/,
    ],
    ['a block that calls itself', '{% block a %}{{ self.a() }}{% endblock %}', /more than 200 levels|too deeply/],
    ['parentheses', `{{ ${'('.repeat(5000)}1${')'.repeat(5000)} }}`, /nested deeper than 200/],
    ['not not not', `{{ ${'not '.repeat(5000)}1 }}`, /nested deeper than 200/],
    ['ifs', '{% if 1 %}'.repeat(5000), /nested deeper than 200/],
    ['a sum of very many', `{{ 1${'+1'.repeat(200_000)} }}`, /nested too deeply/],
    ['its own length', 'a'.repeat(2 ** 20 + 1), /1048577 characters/],
  ];
  for (const [what, template, message] of refused) {
    it(`ends ${what}`, async () => {
      await assert.rejects(() => textOf(template), message);
    });
  }

  it('grows with the input', async () => {
    const messages = Array.from({ length: 20_000 }, (_, i) => ({ role: 'user', content: `${i}` }));
    const template =
      "{% for m in messages %}{{ m.content }}{% if loop.index % 100 == 0 %}{{ messages | map(attribute='role') | list | length }}{% endif %}{% endfor %}";
    assert.ok((await textOf(template, { messages })).endsWith('1999920000'));
    const content = 'word '.repeat(8_000_000);
    const text = await textOf("{{ (m.strip() + (m | trim) + m.replace('word', 's')) | length }}", { m: content });
    assert.equal(text, '95999998');
  });

  it('searches in linear time', async () => {
    const [text, rare] = ["'a' * 300000", "('a' * 100000 ~ 'b' ~ 'a' * 100000)"];
    const template = `{% set t, r = ${text}, ${rare} %}{{ r in t }} {{ t.rfind(r) }} {{ t.count(r) }} {{ t.split(r)|length }} {{ (t ~ r).find(r) }}`;
    assert.equal(await textOf(template), 'False -1 0 1 300000');
  });

  it('wraps and links in linear time', async () => {
    const long = "{% set t = ('.' * 300000) ~ 'x' ~ ('-' * 300000) ~ '@' ~ ('a.' * 200000) %}";
    const lengths = '{{ t | urlize | length }} {{ t | wordwrap(50) | length }} {{ [t] | pprint | length }}';
    assert.equal(await textOf(long + lengths), '2000025 1020002 1000006');
  });

  it('goes through a number of turns in steps that are in proportion', async () => {
    const template = new JinjaTemplate(
      '{% for m in messages %}{{ m.role }}: {{ m.content | trim }}\n{% endfor %}',
      'x.jinja',
    );
    const messages = Array.from({ length: 100_000 }, () => ({ role: 'user', content: ' hi ' }));
    assert.equal((await template.render({ messages })).text.length, 9 * 100_000);
  });
});

describe('a chat template of a stranger', () => {
  const hi = [{ role: 'user', content: 'hi' }];

  it('is rendered as it is', async () => {
    const template = new ChatTemplate('{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}');
    assert.equal(await template.render(hi), '[user] hi');
  });

  it('ends at its first rendering that takes too much, although many are made to know it', async () => {
    const loops = '{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}';
    const template = new ChatTemplate(loops, {}, { name: 'chat_template.jinja' });
    let renderings = 0;
    const { rendered } = template;
    template.rendered = async (...given) => {
      renderings += 1;
      return await rendered.apply(template, given);
    };
    await assert.rejects(template.render(hi), /^TemplateBudgetError: chat_template\.jinja:1: takes too many steps/);
    assert.equal(renderings, 1);
  });
});

describe('what a template cannot reach', () => {
  const given = { messages: [{ role: 'user', content: 'hi' }], o: {} };
  for (const expression of [
    '[].constructor',
    "''.constructor.constructor",
    "o['constructor']",
    'o.__proto__',
    "messages['__proto__']",
    "messages[0]['toString']",
    'o.hasOwnProperty',
    'range.constructor',
    "namespace()['constructor']",
    "''['length']",
    'messages.length',
    '(1).toFixed',
    '1.5.valueOf',
    'raise_exception.call',
    "(messages | map('trim')).next",
    "''.__class__.__mro__",
    'o.update.__globals__',
  ]) {
    it(expression, async () => {
      await assert.rejects(
        () => textOf(`{{ (${expression})() }}`, given),
        /is undefined|no attribute|no element|unsafe/,
      );
    });
  }
});
