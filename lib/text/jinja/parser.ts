// Parses the tokens of a template to statements.
import { SPACE } from './characters.ts';
import { tokenize } from './lexer.ts';
import type { Expression, Filter, Signature, Statement } from './nodes.ts';
import { parseExpression, parseFilter, parseName, parseTarget, parseTuple } from './parse_expression.ts';
import { describe, Tokens } from './tokens.ts';

/** @throws TemplateSyntaxError */
export function parse(template: string): Statement[] {
  return new Parser(new Tokens(tokenize(template))).body([]);
}

const BLANK_ONLY = new RegExp(`^[${SPACE}]+$`);

type Parse = (line: number) => Statement;

class Parser {
  readonly #tokens: Tokens;
  readonly #statements = new Map<string, Parse>([
    ['for', (line) => this.#for(line)],
    ['if', (line) => this.#if(line)],
    ['set', (line) => this.#set(line)],
    ['macro', (line) => this.#macro(line)],
    ['call', (line) => this.#callBlock(line)],
    ['filter', (line) => this.#filterBlock(line)],
    ['with', (line) => this.#with(line)],
    ['block', (line) => this.#block(line)],
    ['print', (line) => this.#print(line)],
    ['autoescape', (line) => this.#autoescape(line)],
    ['generation', (line) => ({ kind: 'generation', body: this.#bodyUntil('endgeneration'), line })],
    ['break', (line) => ({ kind: 'break', line })],
    ['continue', (line) => ({ kind: 'continue', line })],
    ['include', (line) => this.#otherTemplate('include', line)],
    ['import', (line) => this.#otherTemplate('import', line)],
    ['from', (line) => this.#otherTemplate('from', line)],
    ['extends', (line) => this.#otherTemplate('extends', line)],
  ]);

  constructor(tokens: Tokens) {
    this.#tokens = tokens;
  }

  /** Statements up to a tag with one of these names, which then is the current token; without names, up to the end. */
  body(ends: string[]): Statement[] {
    const tokens = this.#tokens;
    const statements: Statement[] = [];
    let output: (Statement & { kind: 'output' }) | null = null;
    for (;;) {
      const { type, value, line } = tokens.next();
      if (type === 'data' || type === 'variable_begin') {
        if (!output) {
          output = { kind: 'output', parts: [], line };
          statements.push(output);
        }
        output.parts.push(type === 'data' ? { kind: 'text', text: value, line } : parseTuple(tokens));
        if (type === 'variable_begin') tokens.expect('variable_end');
        continue;
      }
      if (type === 'eof') {
        if (ends.length === 0) return statements;
        throw tokens.error(`unexpected end of template, expected ${ends.join(' or ')}`);
      }
      output = null;
      if (tokens.isName(...ends)) return statements;
      statements.push(tokens.nested(() => this.#statement(ends)));
      tokens.expect('block_end');
    }
  }

  #statement(ends: string[]): Statement {
    const tokens = this.#tokens;
    if (!tokens.is('name')) throw tokens.error(`expected the name of a tag, got ${describe(tokens.current)}`);
    const { value, line } = tokens.current;
    const parse = this.#statements.get(value);
    if (!parse) throw tokens.error(`unknown tag '${value}'${ends.length > 0 ? `, expected ${ends.join(' or ')}` : ''}`);
    tokens.next();
    return parse(line);
  }

  /** The rest of the tag, the statements, and the name of the tag that ends them. */
  #bodyUntil(...ends: string[]): Statement[] {
    const body = this.#bodyBefore(...ends);
    this.#tokens.next();
    return body;
  }

  #bodyBefore(...ends: string[]): Statement[] {
    this.#tokens.skip('operator', ':');
    this.#tokens.expect('block_end');
    return this.body(ends);
  }

  #for(line: number): Statement {
    const tokens = this.#tokens;
    const target = parseTarget(tokens);
    tokens.expect('name', 'in');
    const iterable = parseTuple(tokens, { withCondition: false });
    const test = tokens.skip('name', 'if') ? parseExpression(tokens) : null;
    const isRecursive = tokens.skip('name', 'recursive');
    const body = this.#bodyBefore('endfor', 'else');
    const otherwise = tokens.next().value === 'else' ? this.#bodyUntil('endfor') : [];
    return { kind: 'for', target, iterable, test, isRecursive, body, otherwise, line };
  }

  #if(line: number): Statement {
    const condition = () => parseTuple(this.#tokens, { withCondition: false });
    const test = condition();
    const body = this.#bodyBefore('elif', 'else', 'endif');
    const others: [Expression, Statement[]][] = [];
    for (;;) {
      const { value } = this.#tokens.next();
      if (value === 'elif') others.push([condition(), this.#bodyBefore('elif', 'else', 'endif')]);
      else return { kind: 'if', test, body, others, otherwise: value === 'else' ? this.#bodyUntil('endif') : [], line };
    }
  }

  #set(line: number): Statement {
    const tokens = this.#tokens;
    const target = parseTarget(tokens, true);
    if (tokens.skip('operator', '=')) return { kind: 'set', target, value: parseTuple(tokens), line };
    let filter: Filter | null = null;
    while (tokens.skip('operator', '|')) filter = parseFilter(tokens, filter);
    return { kind: 'set block', target, filter, body: this.#bodyUntil('endset'), line };
  }

  #signature(): Signature {
    const tokens = this.#tokens;
    const params: string[] = [];
    const defaults: Expression[] = [];
    tokens.expect('operator', '(');
    while (!tokens.isOperator(')')) {
      if (params.length > 0) tokens.expect('operator', ',');
      const name = parseName(tokens);
      if (params.includes(name)) throw tokens.error(`duplicate argument '${name}'`);
      params.push(name);
      if (tokens.skip('operator', '=')) defaults.push(parseExpression(tokens));
      else if (defaults.length > 0) throw tokens.error('non-default argument follows default argument');
    }
    tokens.next();
    return { params, defaults };
  }

  #macro(line: number): Statement {
    const name = parseName(this.#tokens);
    return { kind: 'macro', name, ...this.#signature(), body: this.#bodyUntil('endmacro'), line };
  }

  #callBlock(line: number): Statement {
    const signature = this.#tokens.isOperator('(') ? this.#signature() : { params: [], defaults: [] };
    const call = parseExpression(this.#tokens);
    if (call.kind !== 'call') throw this.#tokens.error('expected a call', line);
    return { kind: 'call block', call, ...signature, body: this.#bodyUntil('endcall'), line };
  }

  #filterBlock(line: number): Statement {
    let filter = parseFilter(this.#tokens, null);
    while (this.#tokens.skip('operator', '|')) filter = parseFilter(this.#tokens, filter);
    return { kind: 'filter block', filter, body: this.#bodyUntil('endfilter'), line };
  }

  #with(line: number): Statement {
    const tokens = this.#tokens;
    const targets = [];
    const values: Expression[] = [];
    while (!tokens.is('block_end')) {
      if (targets.length > 0) tokens.expect('operator', ',');
      targets.push(parseTarget(tokens));
      tokens.expect('operator', '=');
      values.push(parseExpression(tokens));
    }
    return { kind: 'with', targets, values, body: this.#bodyUntil('endwith'), line };
  }

  #autoescape(line: number): Statement {
    const value = parseExpression(this.#tokens);
    return { kind: 'autoescape', value, body: this.#bodyUntil('endautoescape'), line };
  }

  #block(line: number): Statement {
    const tokens = this.#tokens;
    const name = tokens.expect('name').value;
    const isScoped = tokens.skip('name', 'scoped');
    const isRequired = tokens.skip('name', 'required');
    const body = this.#bodyUntil('endblock');
    tokens.skip('name', name);
    const isBlank = ({ kind, text }: { kind: string; text?: string }) => kind === 'text' && BLANK_ONLY.test(text ?? '');
    if (isRequired && !body.every((one) => one.kind === 'output' && one.parts.every(isBlank))) {
      throw tokens.error('required blocks can only contain comments or white space', line);
    }
    return { kind: 'block', name, isScoped, isRequired, body, line };
  }

  #print(line: number): Statement {
    const parts: Expression[] = [];
    while (!this.#tokens.is('block_end')) {
      if (parts.length > 0) this.#tokens.expect('operator', ',');
      parts.push(parseExpression(this.#tokens));
    }
    return { kind: 'output', parts, line };
  }

  /** A tag that needs another template: an error if it is reached, since there is only one. */
  #otherTemplate(tag: string, line: number): Statement {
    const tokens = this.#tokens;
    const stores: string[] = [];
    parseExpression(tokens);
    if (tag === 'import') {
      tokens.expect('name', 'as');
      stores.push(parseName(tokens));
    } else if (tag === 'from') {
      tokens.expect('name', 'import');
      while (!tokens.is('block_end') && !tokens.isName('with', 'without')) {
        if (stores.length > 0) tokens.expect('operator', ',');
        const name = parseName(tokens);
        stores.push(tokens.skip('name', 'as') ? parseName(tokens) : name);
      }
    } else if (tokens.skip('name', 'ignore')) tokens.expect('name', 'missing');
    if (tokens.isName('with', 'without')) {
      tokens.next();
      tokens.expect('name', 'context');
    }
    return { kind: 'other template', tag, stores, line };
  }
}
