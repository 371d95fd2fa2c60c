// Splits the text of a template into tokens, like jinja2 with trim_blocks and lstrip_blocks.
import { escapeOf, SPACE, strip } from './characters.ts';
import { TemplateSyntaxError } from './errors.ts';

export type TokenType =
  | 'data'
  | 'variable_begin'
  | 'variable_end'
  | 'block_begin'
  | 'block_end'
  | 'name'
  | 'string'
  | 'integer'
  | 'float'
  | 'operator'
  | 'eof';

export interface Token {
  type: TokenType;
  /** A string without its quotes and escapes; everything else as written. */
  value: string;
  line: number;
}

const NEXT_TAG = new RegExp(`\\{%([-+]?)[${SPACE}]*raw[${SPACE}]*(?:-%\\}[${SPACE}]*|%\\})|(\\{[%#{])([-+]?)`, 'g');
const RAW_END = new RegExp(`\\{%([-+]?)[${SPACE}]*endraw[${SPACE}]*(?:\\+%\\}|-%\\}[${SPACE}]*|%\\}\\n?)`, 'g');
const COMMENT_END = new RegExp(`\\+#\\}|-#\\}[${SPACE}]*|#\\}\\n?`, 'g');
const BLOCK_END = new RegExp(`\\+%\\}|-%\\}[${SPACE}]*|%\\}\\n?`, 'y');
const VARIABLE_END = new RegExp(`-\\}\\}[${SPACE}]*|\\}\\}`, 'y');
const BLANK = new RegExp(`[${SPACE}]+`, 'y');
const BLANK_ONLY = new RegExp(`^[${SPACE}]+$`);

const RULES: [TokenType, RegExp][] = [
  ['float', /(?<!\.)(?:\d+_)*\d+(?:(?:\.(?:\d+_)*\d+)?e[+-]?(?:\d+_)*\d+|\.(?:\d+_)*\d+)/iy],
  ['integer', /0b(?:_?[01])+|0o(?:_?[0-7])+|0x(?:_?[\da-f])+|[1-9](?:_?\d)*|0(?:_?0)*/iy],
  ['name', /[\p{XIDC}_]+/uy],
  ['string', /'[^'\\]*(?:\\.[^'\\]*)*'|"[^"\\]*(?:\\.[^"\\]*)*"/sy],
  ['operator', /\/\/|\*\*|[=!<>]=|[-+/*%~[\](){}<>=.:|,;]/y],
];
const CLOSING: Record<string, string> = { '{': '}', '(': ')', '[': ']' };

/** @throws TemplateSyntaxError */
export function tokenize(template: string): Token[] {
  return new Lexer(template).run();
}

class Lexer {
  readonly #source: string;
  readonly #tokens: Token[] = [];
  #at = 0;
  #line = 1;
  /** Whether the rest is at the beginning of a line. */
  #isLineStart = true;

  constructor(template: string) {
    this.#source = template.replace(/\r\n?/g, '\n').replace(/\n$/, '');
  }

  run(): Token[] {
    while (this.#at < this.#source.length) {
      NEXT_TAG.lastIndex = this.#at;
      const tag = NEXT_TAG.exec(this.#source);
      if (!tag) {
        this.#data(this.#source.slice(this.#at));
        break;
      }
      const [all, rawSign, kind, sign] = tag;
      this.#text(tag.index, rawSign ?? sign, kind === '{{');
      this.#skip(all.length);
      if (kind === undefined) this.#raw();
      else if (kind === '{#') this.#comment();
      else this.#tag(kind === '{{' ? 'variable' : 'block');
    }
    this.#tokens.push({ type: 'eof', value: '', line: this.#line });
    return this.#tokens;
  }

  /** Adds the text up to a tag, without the white space that the tag removes. */
  #text(end: number, sign: string, isVariable: boolean): void {
    const text = this.#source.slice(this.#at, end);
    const lineBegin = text.lastIndexOf('\n') + 1;
    let kept = text;
    if (sign === '-') kept = strip(text, null, { left: false });
    else if (sign !== '+' && !isVariable && (lineBegin > 0 || this.#isLineStart)) {
      if (BLANK_ONLY.test(text.slice(lineBegin))) kept = text.slice(0, lineBegin);
    }
    this.#data(kept);
    this.#line += text.length === kept.length ? 0 : countLines(text.slice(kept.length));
    this.#at = end;
  }

  #data(text: string): void {
    if (text !== '') this.#tokens.push({ type: 'data', value: text, line: this.#line });
    this.#line += countLines(text);
  }

  #skip(length: number): void {
    const text = this.#source.slice(this.#at, this.#at + length);
    this.#line += countLines(text);
    this.#isLineStart = text.endsWith('\n');
    this.#at += length;
  }

  #comment(): void {
    COMMENT_END.lastIndex = this.#at;
    const end = COMMENT_END.exec(this.#source);
    if (!end) throw new TemplateSyntaxError('missing end of comment tag', this.#line);
    this.#skip(COMMENT_END.lastIndex - this.#at);
  }

  #raw(): void {
    RAW_END.lastIndex = this.#at;
    const end = RAW_END.exec(this.#source);
    if (!end) throw new TemplateSyntaxError('missing end of raw directive', this.#line);
    this.#text(end.index, end[1], false);
    this.#skip(end[0].length);
  }

  /** Reads the tokens between {{ }} or {% %}. */
  #tag(kind: 'variable' | 'block'): void {
    this.#push(`${kind}_begin`, '');
    const endRule = kind === 'block' ? BLOCK_END : VARIABLE_END;
    const open: string[] = [];
    for (;;) {
      const end = open.length === 0 && this.#match(endRule);
      if (end) {
        this.#push(`${kind}_end`, '');
        this.#skip(end.length);
        return;
      }
      const blank = this.#match(BLANK);
      if (blank) {
        this.#skip(blank.length);
        continue;
      }
      if (this.#at >= this.#source.length) return; // the parser reports what is missing
      this.#skip(this.#token(open));
    }
  }

  /** Reads one token and returns its length. */
  #token(open: string[]): number {
    for (const [type, rule] of RULES) {
      const value = this.#match(rule);
      if (!value) continue;
      if (type === 'operator') this.#balance(value, open);
      if (type === 'name' && !/^[\p{XIDS}_]/u.test(value)) {
        throw new TemplateSyntaxError('invalid character in identifier', this.#line);
      }
      this.#push(type, type === 'string' ? this.#unescape(value.slice(1, -1)) : value);
      return value.length;
    }
    throw new TemplateSyntaxError(`unexpected char ${JSON.stringify(this.#source[this.#at])}`, this.#line);
  }

  #balance(operator: string, open: string[]): void {
    if (operator in CLOSING) open.push(CLOSING[operator]);
    else if (/^[\])}]$/.test(operator)) {
      const expected = open.pop();
      if (expected === operator) return;
      throw new TemplateSyntaxError(
        `unexpected '${operator}'${expected ? `, expected '${expected}'` : ''}`,
        this.#line,
      );
    }
  }

  #match(rule: RegExp): string | null {
    rule.lastIndex = this.#at;
    return rule.exec(this.#source)?.[0] ?? null;
  }

  #push(type: TokenType, value: string): void {
    this.#tokens.push({ type, value, line: this.#line });
  }

  /** Applies Python's unicode-escape codec to the text, after escaping what is not ASCII, like jinja2. */
  #unescape(raw: string): string {
    if (!raw.includes('\\')) return raw;
    return raw.replace(ESCAPE, (all, octal?: string, hex?: string) => {
      if (octal) return String.fromCharCode(Number.parseInt(octal, 8));
      if (hex) {
        const code = Number.parseInt(hex.slice(1), 16);
        if (code >= 0xd800 && code <= 0xdfff) {
          throw new TemplateSyntaxError(`${all} is half a surrogate pair, which is no text`, this.#line);
        }
        if (code <= 0x10ffff) return String.fromCodePoint(code);
        throw new TemplateSyntaxError('illegal Unicode character', this.#line);
      }
      const next = all.slice(1);
      if (next in SIMPLE) return SIMPLE[next];
      if (/^[xuU]$/.test(next)) throw new TemplateSyntaxError(`truncated \\${next} escape`, this.#line);
      if (next === 'N') throw new TemplateSyntaxError('characters by name, \\N{…}, are not supported', this.#line);
      return next > '\x7f' ? escapeOf(next) : all;
    });
  }
}

const ESCAPE = /\\(?:([0-7]{1,3})|(x[\da-fA-F]{2}|u[\da-fA-F]{4}|U[\da-fA-F]{8})|.)/gsu;
const SIMPLE: Record<string, string> = {
  '\n': '',
  '\\': '\\',
  "'": "'",
  '"': '"',
  a: '\x07',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
  v: '\v',
};

function countLines(text: string): number {
  let count = 0;
  for (let at = text.indexOf('\n'); at >= 0; at = text.indexOf('\n', at + 1)) count += 1;
  return count;
}
