// Parses expressions, from the loosest operator to the tightest.
import type { Arguments, BinaryOperator, Comparison, Expression, Filter, Target } from './nodes.ts';
import { describe, type Tokens } from './tokens.ts';

const COMPARISONS = ['==', '!=', '<', '<=', '>', '>='];
const NO_ARGUMENTS: Arguments = { positional: [], named: [], list: null, dict: null };
const CONSTANTS = new Map<string, null | boolean>([
  ['true', true],
  ['True', true],
  ['false', false],
  ['False', false],
  ['none', null],
  ['None', null],
]);

export interface TupleOptions {
  /** Whether `a if b else c` is allowed. @default true */
  withCondition?: boolean;
  /** Whether it is in parentheses, where an empty tuple is allowed. */
  inParentheses?: boolean;
}

/** One expression, or several with commas: a tuple. */
export function parseTuple(tokens: Tokens, options: TupleOptions = {}): Expression {
  const { withCondition = true, inParentheses = false } = options;
  const { line } = tokens.current;
  const items: Expression[] = [];
  let isTuple = false;
  while (!isTupleEnd(tokens)) {
    items.push(withCondition ? parseExpression(tokens) : parseOr(tokens));
    if (!tokens.isOperator(',')) break;
    tokens.next();
    isTuple = true;
  }
  if (!isTuple && items.length > 0) return items[0];
  if (!isTuple && !inParentheses) throw tokens.error(`expected an expression, got ${describe(tokens.current)}`);
  return { kind: 'tuple', items, line };
}

function isTupleEnd(tokens: Tokens): boolean {
  return tokens.is('variable_end') || tokens.is('block_end') || tokens.isOperator(')');
}

/** Parses what may be left of = or after for: a name, names, or a field of a namespace. */
export function parseTarget(tokens: Tokens, withFields = false): Target {
  const { line } = tokens.current;
  const items: Target[] = [];
  let isTuple = false;
  while (!isTupleEnd(tokens)) {
    items.push(parseOneTarget(tokens, withFields));
    if (!tokens.isOperator(',')) break;
    tokens.next();
    isTuple = true;
  }
  if (!isTuple && items.length > 0) return items[0];
  if (!isTuple) throw tokens.error(`expected a name, got ${describe(tokens.current)}`);
  return { kind: 'tuple', items, line };
}

function parseOneTarget(tokens: Tokens, withFields: boolean): Target {
  const { line } = tokens.current;
  if (tokens.skip('operator', '(')) {
    const target = tokens.nested(() => parseTarget(tokens, withFields));
    tokens.expect('operator', ')');
    return target;
  }
  const name = parseName(tokens);
  if (!withFields || !tokens.skip('operator', '.')) return { kind: 'name', name, line };
  return { kind: 'field', object: name, name: tokens.expect('name').value, line };
}

/** A name that may be assigned to. */
export function parseName(tokens: Tokens): string {
  const { value, line } = tokens.expect('name');
  if (CONSTANTS.has(value)) throw tokens.error(`can't assign to ${value}`, line);
  return value;
}

export function parseExpression(tokens: Tokens): Expression {
  return tokens.nested(() => parseCondition(tokens));
}

function parseCondition(tokens: Tokens): Expression {
  const { line } = tokens.current;
  let expression = parseOr(tokens);
  while (tokens.skip('name', 'if')) {
    const test = parseOr(tokens);
    const otherwise = tokens.skip('name', 'else') ? parseExpression(tokens) : null;
    expression = { kind: 'condition', test, value: expression, otherwise, line };
  }
  return expression;
}

/** Parses operators of one precedence, grouped from the left. */
function leftToRight(type: 'name' | 'operator', operators: BinaryOperator[], operand: (tokens: Tokens) => Expression) {
  return (tokens: Tokens): Expression => {
    let { line } = tokens.current;
    let left = operand(tokens);
    while (tokens.current.type === type && (operators as string[]).includes(tokens.current.value)) {
      const operator = tokens.next().value as BinaryOperator;
      left = { kind: 'binary', operator, left, right: operand(tokens), line };
      line = tokens.current.line;
    }
    return left;
  };
}

const parsePower = leftToRight('operator', ['**'], (tokens) => parseUnary(tokens));
const parseProduct = leftToRight('operator', ['*', '/', '//', '%'], parsePower);
const parseSum = leftToRight('operator', ['+', '-'], parseConcat);
const parseAnd = leftToRight('name', ['and'], parseNot);
const parseOr = leftToRight('name', ['or'], parseAnd);

function parseNot(tokens: Tokens): Expression {
  const { line } = tokens.current;
  if (!tokens.skip('name', 'not')) return parseCompare(tokens);
  return { kind: 'unary', operator: 'not', operand: tokens.nested(() => parseNot(tokens)), line };
}

function parseCompare(tokens: Tokens): Expression {
  const { line } = tokens.current;
  const first = parseSum(tokens);
  const rest: [Comparison, Expression][] = [];
  for (;;) {
    let operator: string;
    if (tokens.isOperator(...COMPARISONS)) operator = tokens.next().value;
    else if (tokens.skip('name', 'in')) operator = 'in';
    else if (tokens.isName('not') && tokens.following.type === 'name' && tokens.following.value === 'in') {
      tokens.next();
      tokens.next();
      operator = 'not in';
    } else break;
    rest.push([operator as Comparison, parseSum(tokens)]);
  }
  return rest.length === 0 ? first : { kind: 'compare', first, rest, line };
}

function parseConcat(tokens: Tokens): Expression {
  const { line } = tokens.current;
  const parts = [parseProduct(tokens)];
  while (tokens.skip('operator', '~')) parts.push(parseProduct(tokens));
  return parts.length === 1 ? parts[0] : { kind: 'concat', parts, line };
}

function parseUnary(tokens: Tokens, withFilters = true): Expression {
  const { line } = tokens.current;
  let expression: Expression;
  if (tokens.isOperator('-', '+')) {
    const operator = tokens.next().value as '-' | '+';
    expression = { kind: 'unary', operator, operand: tokens.nested(() => parseUnary(tokens, false)), line };
  } else expression = parsePrimary(tokens);
  expression = parsePostfix(tokens, expression);
  return withFilters ? parseFilters(tokens, expression) : expression;
}

function parsePrimary(tokens: Tokens): Expression {
  const { type, value, line } = tokens.next();
  if (type === 'name') {
    const constant = CONSTANTS.get(value);
    return constant === undefined ? { kind: 'name', name: value, line } : { kind: 'constant', value: constant, line };
  }
  if (type === 'string') {
    let text = value;
    while (tokens.is('string')) text += tokens.next().value;
    return { kind: 'constant', value: text, line };
  }
  if (type === 'integer' || type === 'float') {
    return { kind: 'number', digits: value.replaceAll('_', ''), isFloat: type === 'float', line };
  }
  if (type === 'operator' && value === '(') {
    const inner = tokens.nested(() => parseTuple(tokens, { inParentheses: true }));
    tokens.expect('operator', ')');
    return inner;
  }
  if (type === 'operator' && value === '[') {
    return { kind: 'list', items: parseItems(tokens, ']', () => parseExpression(tokens)), line };
  }
  if (type === 'operator' && value === '{') {
    const entries = parseItems(tokens, '}', (): [Expression, Expression] => {
      const key = parseExpression(tokens);
      tokens.expect('operator', ':');
      return [key, parseExpression(tokens)];
    });
    return { kind: 'dict', entries, line };
  }
  throw tokens.error(`unexpected ${describe({ type, value, line })}`, line);
}

/** Parses items separated by commas, up to and including the closing token; the last may also be followed by a comma. */
function parseItems<T>(tokens: Tokens, close: string, parse: () => T): T[] {
  const items: T[] = [];
  while (!tokens.isOperator(close)) {
    if (items.length > 0) tokens.expect('operator', ',');
    if (tokens.isOperator(close)) break;
    items.push(parse());
  }
  tokens.expect('operator', close);
  return items;
}

function parsePostfix(tokens: Tokens, start: Expression): Expression {
  let expression = start;
  while (tokens.isOperator('.', '[', '(')) {
    expression = tokens.isOperator('(') ? parseCall(tokens, expression) : parseSubscript(tokens, expression);
  }
  return expression;
}

function parseCall(tokens: Tokens, callee: Expression): Expression {
  const { line } = tokens.current;
  return { kind: 'call', callee, args: parseArguments(tokens), line };
}

function parseSubscript(tokens: Tokens, object: Expression): Expression {
  const { value, line } = tokens.next();
  if (value === '.') {
    const name = tokens.next();
    if (name.type === 'name') return { kind: 'attribute', object, name: name.value, line };
    if (name.type !== 'integer') throw tokens.error('expected a name or number after the point', name.line);
    const key: Expression = { kind: 'number', digits: name.value.replaceAll('_', ''), isFloat: false, line };
    return { kind: 'item', object, key, line };
  }
  const keys: (Expression | (Expression | null)[])[] = [];
  while (!tokens.isOperator(']')) {
    if (keys.length > 0) tokens.expect('operator', ',');
    keys.push(parseSubscribed(tokens));
  }
  tokens.next();
  const [key] = keys;
  if (keys.length === 1) {
    return Array.isArray(key) ? { kind: 'slice', object, bounds: key, line } : { kind: 'item', object, key, line };
  }
  if (keys.some((one) => Array.isArray(one))) throw tokens.error('a slice cannot stand in a tuple', line);
  return { kind: 'item', object, key: { kind: 'tuple', items: keys as Expression[], line }, line };
}

/** An index, or the three bounds of a slice. */
function parseSubscribed(tokens: Tokens): Expression | (Expression | null)[] {
  const bound = () => (tokens.isOperator(':', ']', ',') ? null : parseExpression(tokens));
  const begin = bound();
  if (!tokens.skip('operator', ':')) {
    if (begin) return begin;
    throw tokens.error(`unexpected ${describe(tokens.current)}`);
  }
  const end = bound();
  return [begin, end, tokens.skip('operator', ':') ? bound() : null];
}

function parseArguments(tokens: Tokens): Arguments {
  const { line } = tokens.expect('operator', '(');
  const args: Arguments = { positional: [], named: [], list: null, dict: null };
  const ensure = (isRight: boolean) => {
    if (!isRight) throw tokens.error('invalid order of arguments of a call', line);
  };
  let isFirst = true;
  while (!tokens.isOperator(')')) {
    if (!isFirst) tokens.expect('operator', ',');
    if (!isFirst && tokens.isOperator(')')) break;
    isFirst = false;
    if (tokens.skip('operator', '*')) {
      ensure(!args.list && !args.dict);
      args.list = parseExpression(tokens);
    } else if (tokens.skip('operator', '**')) {
      ensure(!args.dict);
      args.dict = parseExpression(tokens);
    } else if (tokens.is('name') && tokens.following.type === 'operator' && tokens.following.value === '=') {
      ensure(!args.dict);
      const name = tokens.next().value;
      tokens.next();
      if (args.named.some(([other]) => other === name)) throw tokens.error(`keyword argument repeated: ${name}`, line);
      args.named.push([name, parseExpression(tokens)]);
    } else {
      ensure(!args.list && !args.dict && args.named.length === 0);
      args.positional.push(parseExpression(tokens));
    }
  }
  tokens.next();
  return args;
}

function parseFilters(tokens: Tokens, start: Expression): Expression {
  let expression = start;
  for (;;) {
    if (tokens.skip('operator', '|')) expression = parseFilter(tokens, expression);
    else if (tokens.isName('is')) expression = parseTest(tokens, expression);
    else if (tokens.isOperator('(')) expression = parseCall(tokens, expression);
    else return expression;
  }
}

function parseDottedName(tokens: Tokens): string {
  let name = tokens.expect('name').value;
  while (tokens.skip('operator', '.')) name += `.${tokens.expect('name').value}`;
  return name;
}

/** A filter after its |. */
export function parseFilter(tokens: Tokens, value: Expression | null): Filter {
  const { line } = tokens.current;
  const name = parseDottedName(tokens);
  const args = tokens.isOperator('(') ? parseArguments(tokens) : NO_ARGUMENTS;
  return { kind: 'filter', name, value, args, line };
}

function parseTest(tokens: Tokens, value: Expression): Expression {
  const { line } = tokens.next();
  const isNegated = tokens.skip('name', 'not');
  const name = parseDottedName(tokens);
  let args = NO_ARGUMENTS;
  if (tokens.isOperator('(')) args = parseArguments(tokens);
  else if (/^(name|string|integer|float)$/.test(tokens.current.type) || tokens.isOperator('[', '{')) {
    if (tokens.isName('is')) throw tokens.error('tests cannot be chained with is');
    if (!tokens.isName('else', 'or', 'and')) {
      args = { ...NO_ARGUMENTS, positional: [parsePostfix(tokens, parsePrimary(tokens))] };
    }
  }
  const test: Expression = { kind: 'test', name, value, args, line };
  return isNegated ? { kind: 'unary', operator: 'not', operand: test, line } : test;
}
