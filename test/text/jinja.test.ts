// Templates against what Python's jinja2 makes of them: test/support/jinja_cases.py wrote the fixture.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { isDeepStrictEqual } from 'node:util';
import { JinjaTemplate } from '../../lib/text/jinja/template.ts';
import { Float, parseJson } from '../../lib/text/json.ts';

interface Case {
  template: string;
  /** Absent: jinja2 throws, or prints an address. */
  text?: string;
  /** In code points, as Python counts. */
  spans?: [begin: number, end: number][];
  error?: string;
}

const read = (name: string) => readFileSync(new URL(`../fixtures/jinja/${name}.json`, import.meta.url), 'utf8');
const cases = JSON.parse(read('rendered')) as Case[];
const { variables } = parseJson(read('templates')) as { variables: Record<string, unknown> };
const now = new Date(2024, 1, 29, 15, 4, 5, 678);

/** What jinja2 renders and this engine refuses by name. */
const REFUSED = new Map([
  ["{{ 'abc'.encode().startswith('a'.encode()) }}", /the method startswith of bytes is not supported/],
  ['{% autoescape 1 == 1 %}{% endautoescape %}', /autoescape takes true, false or a variable here/],
  ["{{ '\\N{BULLET}' }}", /characters by name/],
  ["{{ '\\ud83d' }}", /half a surrogate pair/],
  ['{{ dict }}', /a type cannot be converted to text/],
]);

const inUnits = (text: string, points: number) => [...text].slice(0, points).join('').length;

/** What is wrong with our rendering of a template; null where nothing is. */
async function difference({ template, text, spans, error }: Case): Promise<unknown> {
  const wanted = spans?.filter(([begin, end]) => begin < end).map((span) => span.map((at) => inUnits(text!, at)));
  const expected =
    text === undefined ? undefined : { text, generated: wanted ?? (template.includes('{% generation %}') ? [] : null) };
  let got: unknown;
  try {
    got = await new JinjaTemplate(template, 'x.jinja').render(variables, now);
  } catch (thrown) {
    const { name, message } = thrown as Error;
    const isTold = /^Template(Syntax|Budget)?Error$/.test(name) && /^x\.jinja:\d+: ./.test(message);
    if (isTold && (REFUSED.get(template)?.test(message) ?? text === undefined)) return null;
    got = `${name}: ${message}`;
  }
  return isDeepStrictEqual(got, expected) && !REFUSED.has(template)
    ? null
    : { template, got, expected: expected ?? error };
}

describe('Jinja templates', () => {
  it('are rendered or refused as jinja2 does it', async () => {
    const differences: unknown[] = [];
    for (const one of cases) {
      const found = await difference(one);
      if (found) differences.push(found);
    }
    assert.deepEqual(differences, []);
    assert.ok(cases.length > 1000);
  });
});

describe('JinjaTemplate', () => {
  const render = async (template: string, given: Record<string, unknown> = {}) =>
    await new JinjaTemplate(template, 'x.jinja').render(given);
  const textOf = async (template: string, given?: Record<string, unknown>) => (await render(template, given)).text;

  it('takes numbers as they are', async () => {
    const given = { a: 2, b: new Float(2), c: 1234567890123456789n, d: 0.5, e: 1e21, f: -0.1 };
    assert.equal(
      await textOf('{{ [a, b, c, d, e, f] | tojson }}', given),
      '[2, 2.0, 1234567890123456789, 0.5, 1e+21, -0.1]',
    );
  });

  it('takes undefined as absent, and maps and objects in their order', async () => {
    const given = {
      a: undefined,
      b: { y: 1, x: undefined, n: null },
      c: new Map([
        ['2', 1],
        ['1', 2],
      ]),
    };
    assert.equal(
      await textOf('{{ a is defined }} {{ b }} {{ c }}', given),
      "False {'y': 1, 'n': None} {'2': 1, '1': 2}",
    );
  });

  it('refuses values that are not data', async () => {
    await assert.rejects(textOf('', { a: [{ b: new Date() }] }), /a\[0\]\.b: a Date cannot be given to a template/);
    await assert.rejects(textOf('', { a: () => 1 }), /a: a function cannot/);
  });

  it('does not change what it is given, and renders again alike', async () => {
    const template = new JinjaTemplate('{{ m.pop() }}{% set c = cycler(1, 2) %}{{ c.next() }}{{ m }}', 'x.jinja');
    const m = [1, 2];
    for (let i = 0; i < 2; i++) assert.equal((await template.render({ m })).text, '21[1]');
    assert.deepEqual(m, [1, 2]);
  });

  it('names file and line of what is wrong', async () => {
    assert.throws(
      () => new JinjaTemplate('a\n{% if x %}\n{{ x }', 'dir/t.jinja'),
      /^TemplateSyntaxError: dir\/t\.jinja:3: /,
    );
    await assert.rejects(
      textOf("a\n{% if true %}\n\n{{ 'a' + none }}{% endif %}"),
      /x\.jinja:4: .*'str' and 'NoneType'/,
    );
    await assert.rejects(textOf('{% macro m() %}\n{{ y.z }}\n{% endmacro %}{{ m() }}'), /x\.jinja:2: 'y' is undefined/);
    await assert.rejects(textOf("{{ raise_exception('No é here') }}"), /x\.jinja:1: No é here$/);
  });

  it('finds generated text in macros, set blocks and recursive loops', async () => {
    const spansOf = async (template: string) => {
      const { text, generated } = await render(template);
      return generated?.map(([begin, end]) => text.slice(begin, end));
    };
    const mark = '{% generation %}new{{ 1 }}{% endgeneration %}';
    assert.deepEqual(await spansOf(`{% macro m() %}old${mark}{% endmacro %}a{{ m() }}b{{ m() }}`), ['new1', 'new1']);
    assert.deepEqual(await spansOf(`{% set x %}old${mark}{% endset %}a{{ x }}`), ['new1']);
    assert.deepEqual(await spansOf(`{% for i in [[[]]] recursive %}é😀${mark}{{ loop(i) }}{% endfor %}`), [
      'new1',
      'new1',
    ]);
    assert.deepEqual(await spansOf('{% generation %}a{% generation %}b{% endgeneration %}{% endgeneration %}c'), [
      'ab',
    ]);
    await assert.rejects(spansOf(`{% set x %}old${mark}{% endset %}{{ x | upper }}`), /was changed afterwards/);
  });
});
