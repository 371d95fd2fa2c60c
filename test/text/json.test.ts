import assert from 'node:assert/strict';
import { Float, formatJson, parseJson } from '../../lib/text/json.ts';

/** As Python's json.dumps writes it by default. */
const python = { itemSeparator: ', ', keySeparator: ': ' };

describe('JSON with exact numbers', () => {
  // Pairs of a text and json.dumps(json.loads(text), ensure_ascii=False) of Python 3.11.
  const pairs: [string, string][] = [
    [
      '{"user": 1234567890123456789, "share": 2.0, "n": [-98765432109876543210, 0.1, 7]}',
      '{"user": 1234567890123456789, "share": 2.0, "n": [-98765432109876543210, 0.1, 7]}',
    ],
    [
      '[9007199254740991, 9007199254740992, -9007199254740993]',
      '[9007199254740991, 9007199254740992, -9007199254740993]',
    ],
    [
      '[1e3, 1E-5, 1e16, 123456789012345678.0, 0.0001, 1.5e300]',
      '[1000.0, 1e-05, 1e+16, 1.2345678901234568e+17, 0.0001, 1.5e+300]',
    ],
    ['[-0, -0.0, 0, 0.0, 1e400, -1e400]', '[0, -0.0, 0, 0.0, Infinity, -Infinity]'],
    ['{"b": 1, "10": 2, "9": {"x": null, "0": true}}', '{"b": 1, "10": 2, "9": {"x": null, "0": true}}'],
    ['{"a": 1.0, "b": 2, "a": 3}', '{"a": 3, "b": 2}'],
    [
      '["2.0 \\" \\\\", "\\u00e9\\ud83d\\ude00\\ud800\\u007f\\u0007", 2.0]',
      '["2.0 \\" \\\\", "é😀\ud800\u007f\\u0007", 2.0]',
    ],
    [' [ ] ', '[]'],
    ['"1e5"', '"1e5"'],
    ['1e5', '100000.0'],
  ];
  for (const [text, written] of pairs) {
    it(`reads and writes ${text}`, () => {
      assert.equal(formatJson(parseJson(text), python), written);
    });
  }

  it('gives what JSON.parse gives where that is exact', () => {
    const text = '{"messages": [{"role": "user", "content": "1.5 \\n"}], "n": [1, -2.5, true, false, null], "e": {}}';
    assert.deepEqual(parseJson(text), JSON.parse(text));
    const forced = `[2.0, ${text}]`; // by the other path
    assert.deepEqual((parseJson(forced) as unknown[])[1], JSON.parse(text));
  });

  it('tells bigint, Float and numbers apart', () => {
    assert.deepEqual(parseJson('[9007199254740993, 2.0, 2, 2.5]'), [9007199254740993n, new Float(2), 2, 2.5]);
  });

  it('keeps __proto__ as an ordinary key', () => {
    const value = parseJson('{"__proto__": {"x": 1.0}}') as object;
    assert.deepEqual(Object.keys(value), ['__proto__']);
    assert.equal(Object.getPrototypeOf(value), Object.prototype);
  });

  it('lets an object with keys out of order be changed and copied', () => {
    const value = parseJson('{"b": 1, "2": 2}') as Record<string, unknown>;
    value.a = 3;
    delete value.b;
    assert.equal(formatJson(value), '{"2":2,"a":3}');
    assert.deepEqual({ ...value }, { 2: 2, a: 3 });
  });

  it('indents, sorts and escapes as Python does', () => {
    const value = parseJson('{"b": [1, 2.0, []], "a": "é😀", "c": {}}');
    assert.equal(
      formatJson(value, { ...python, itemSeparator: ',', indent: '  ', sortKeys: true, ensureAscii: true }),
      '{\n  "a": "\\u00e9\\ud83d\\ude00",\n  "b": [\n    1,\n    2.0,\n    []\n  ],\n  "c": {}\n}',
    );
  });

  it('throws as JSON.parse, and for integers that Python does not read', () => {
    assert.throws(() => parseJson('{"a": 2.0,}'), SyntaxError);
    assert.throws(() => parseJson('[NaN]'), SyntaxError);
    assert.throws(() => parseJson('9'.repeat(4301)), /4301 digits/);
    assert.equal(formatJson(parseJson('9'.repeat(4300))), '9'.repeat(4300));
  });

  it('reads any depth, and writes no depth that would overflow the stack', () => {
    const deep = `${'['.repeat(200_000)}2.0${']'.repeat(200_000)}`;
    const value = parseJson(deep);
    assert.throws(() => formatJson(value), /deeper than 1000/);
    assert.throws(() => formatJson({ f() {} }), /JSON has no function/);
  });
});
