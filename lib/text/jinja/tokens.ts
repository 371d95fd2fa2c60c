// A cursor over tokens.
import { TemplateSyntaxError } from './errors.ts';
import type { Token, TokenType } from './lexer.ts';

/** Limit of nested expressions and blocks in the text. Python's own parser stops jinja2 earlier. */
const MAX_NESTING = 200;

export class Tokens {
  readonly #tokens: readonly Token[];
  #at = 0;
  #nesting = 0;

  constructor(tokens: readonly Token[]) {
    this.#tokens = tokens;
  }

  get current(): Token {
    return this.#tokens[this.#at];
  }

  /** The token after the current one. */
  get following(): Token {
    return this.#tokens[Math.min(this.#at + 1, this.#tokens.length - 1)];
  }

  next(): Token {
    const { current } = this;
    if (current.type !== 'eof') this.#at += 1;
    return current;
  }

  is(type: TokenType, value?: string): boolean {
    return this.current.type === type && (value === undefined || this.current.value === value);
  }

  isName(...names: string[]): boolean {
    return this.current.type === 'name' && names.includes(this.current.value);
  }

  isOperator(...operators: string[]): boolean {
    return this.current.type === 'operator' && operators.includes(this.current.value);
  }

  /** Skips the token if it is this one. Returns whether it did. */
  skip(type: TokenType, value: string): boolean {
    if (!this.is(type, value)) return false;
    this.next();
    return true;
  }

  expect(type: TokenType, value?: string): Token {
    if (this.is(type, value)) return this.next();
    throw this.error(`expected ${value ? `'${value}'` : TOKEN_NAMES[type]}, got ${describe(this.current)}`);
  }

  error(message: string, line = this.current.line): TemplateSyntaxError {
    return new TemplateSyntaxError(message, line);
  }

  nested<T>(parse: () => T): T {
    this.#nesting += 1;
    if (this.#nesting > MAX_NESTING) throw this.error(`nested deeper than ${MAX_NESTING} levels`);
    const parsed = parse();
    this.#nesting -= 1;
    return parsed;
  }
}

const TOKEN_NAMES: Record<TokenType, string> = {
  data: 'text',
  variable_begin: "'{{'",
  variable_end: "'}}'",
  block_begin: "'{%'",
  block_end: "'%}'",
  name: 'a name',
  string: 'a string',
  integer: 'an integer',
  float: 'a float',
  operator: 'an operator',
  eof: 'the end of the template',
};

export function describe({ type, value }: Token): string {
  if (type === 'name' || type === 'operator') return `'${value}'`;
  return TOKEN_NAMES[type];
}
