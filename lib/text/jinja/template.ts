// Renders chat templates like transformers does with Python's jinja2: trim_blocks and lstrip_blocks, its sandbox, loop controls, {%
// generation %} and its tojson. What would give another result is an error.
import { Budget } from './budget.ts';
import { compileStatements } from './compile.ts';
import { Input } from './dict.ts';
import { TemplateBudgetError, TemplateError, TemplateSyntaxError } from './errors.ts';
import { Context, Frame, type Span, State } from './frame.ts';
import { globals } from './globals.ts';
import type { Statement } from './nodes.ts';
import { parse } from './parser.ts';
import { enter, FunctionScope, type Place } from './scope.ts';
import type { Blocks, Run } from './statement.ts';
import { Symbols } from './symbols.ts';
import { Builtin, Markup, Obj, Undefined, type Value } from './values.ts';
import { findAll, undeclared } from './walk.ts';

/** Longest template in UTF-16 units. The longest public ones have 40 thousand. */
const MAX_UNITS = 2 ** 20;

export interface Rendered {
  text: string;
  /** The spans that {% generation %} has marked, in UTF-16 units, in order and without overlaps; null if the template has no such tags. */
  generated: readonly Span[] | null;
}

/** A compiled template, which can be rendered any number of times. */
export class JinjaTemplate {
  readonly #name: string;
  readonly #run: (state: State, context: Context) => void;
  readonly #hasGeneration: boolean;

  /**
   * @param source the template
   * @param name its file, for messages
   * @throws TemplateSyntaxError that names file and line
   */
  constructor(source: string, name: string) {
    this.#name = name;
    if (source.length > MAX_UNITS) {
      throw new TemplateError(`${name}: a template of ${source.length} characters (at most ${MAX_UNITS})`);
    }
    try {
      const statements = parse(source);
      this.#run = compileTemplate(statements);
      this.#hasGeneration = findAll(statements, 'generation').length > 0;
    } catch (error) {
      throw this.#located(error, error instanceof TemplateSyntaxError ? error.line : 1);
    }
  }

  /**
   * Renders the template. Variables may be null, booleans, numbers, bigints, Float, strings, arrays, plain objects and maps.
   * @param now the time that strftime_now() returns
   * @throws TemplateError that names file and line, wherever jinja2 throws; TemplateBudgetError if it takes more than the budget
   */
  async render(variables: Record<string, unknown>, now = new Date()): Promise<Rendered> {
    const budget = new Budget();
    const state = new State(budget);
    try {
      const input = new Input();
      const given = globals(now);
      for (const [name, value] of Object.entries(variables)) {
        if (value !== undefined) given.set(name, input.valueOf(value, name));
      }
      budget.extend(input.values, input.units);
      this.#run(state, new Context(given));
      if (!state.isAllPlaced) throw new TemplateError('text with {% generation %} in it was changed afterwards');
    } catch (error) {
      throw this.#located(error, state.line);
    }
    return { text: state.output.toString(), generated: this.#hasGeneration ? apart(state.output.spans) : null };
  }

  #located(error: unknown, line: number): Error {
    const isOverflow = error instanceof RangeError && /call stack/.test(error.message);
    const message = isOverflow ? 'nested too deeply' : (error as Error).message;
    const place = `${this.#name}:${line}: ${message}`;
    if (error instanceof TemplateSyntaxError) return new TemplateSyntaxError(place, line);
    if (isOverflow || error instanceof TemplateBudgetError) return new TemplateBudgetError(place, { cause: error });
    return new TemplateError(place, { cause: error });
  }
}

/** Sorts spans and joins those that overlap. */
function apart(spans: readonly Span[]): Span[] {
  const merged: [number, number][] = [];
  for (const [begin, end] of [...spans].sort(([a], [b]) => a - b)) {
    const last = merged.at(-1);
    if (last && begin < last[1]) last[1] = Math.max(last[1], end);
    else if (begin < end) merged.push([begin, end]);
  }
  return merged;
}

function compileTemplate(statements: Statement[]): (state: State, context: Context) => void {
  const blocks: Blocks = new Map();
  for (const block of findAll(statements, 'block')) {
    if (blocks.has(block.name)) throw new TemplateSyntaxError(`block '${block.name}' defined twice`, block.line);
    blocks.set(block.name, () => {});
  }
  const root = compileFunction(statements, blocks, true);
  for (const block of findAll(statements, 'block')) {
    const run = compileFunction(block.body, blocks, false);
    blocks.set(block.name, (frame, local) => {
      frame.state.budget.enter();
      run(frame.state, local ? frame.context.with(local) : frame.context);
      frame.state.budget.leave();
    });
  }
  return root;
}

/** Compiles the template or one of its blocks to a function that sees only the context of what is around it. */
function compileFunction(
  statements: Statement[],
  blocks: Blocks,
  isRoot: boolean,
): (state: State, context: Context) => void {
  const symbols = new Symbols(null);
  const scope = new FunctionScope(null, 0);
  const place: Place = { symbols, scope, isTop: isRoot, isSoft: false, escaping: { isOn: false, isVolatile: false } };
  const special = undeclared(statements, isRoot ? ['self'] : ['self', 'super']);
  for (const name of special) symbols.declare(name);
  symbols.statements(statements);
  const writes = [...special].map((name) => [name, scope.write(symbols.find(name)!)] as const);
  const start = enter(place);
  const body: Run = compileStatements(statements, place, blocks);
  return (state, context) => {
    const frame = new Frame(state, context, null, scope.size);
    for (const [name, write] of writes) {
      write(frame, name === 'self' ? new Self(blocks, frame) : new Undefined('there is no parent block'));
    }
    start(frame);
    body(frame);
  };
}

/** `self`: its items are the blocks, as functions. */
class Self extends Obj {
  readonly typeName = 'TemplateReference';
  readonly #blocks: Blocks;
  readonly #frame: Frame;

  constructor(blocks: Blocks, frame: Frame) {
    super();
    this.#blocks = blocks;
    this.#frame = frame;
  }

  override repr() {
    return '<TemplateReference None>';
  }

  override item(key: Value): Value | undefined {
    const block = typeof key === 'string' ? this.#blocks.get(key) : undefined;
    if (!block) return undefined;
    const { state } = this.#frame;
    return new Builtin(() => {
      const { isEscaping } = state;
      const text = state.textOf(state.capture(() => block(this.#frame, null)));
      return isEscaping ? new Markup(text) : text;
    }, 'BlockReference');
  }
}
