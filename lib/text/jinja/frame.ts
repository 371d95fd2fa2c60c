// The state of a template while it runs.
import type { Budget } from './budget.ts';
import type { Value } from './values.ts';

/** A range [begin, end) of UTF-16 units inside {% generation %}. */
export type Span = readonly [begin: number, end: number];

/** Text that is being written, and the spans in it. */
export class Output {
  readonly #parts: string[] = [];
  readonly spans: Span[] = [];
  length = 0;

  write(text: string): void {
    this.#parts.push(text);
    this.length += text.length;
  }

  /** Adds spans of the text that is written next. */
  mark(spans: readonly Span[]): void {
    for (const [begin, end] of spans) this.spans.push([this.length + begin, this.length + end]);
  }

  toString(): string {
    return this.#parts.join('');
  }
}

/** The variables that belong to no scope: the given ones, and those assigned at the top level of the template. */
export class Context {
  readonly #given: ReadonlyMap<string, Value>;
  readonly #assigned = new Map<string, Value>();

  constructor(given: ReadonlyMap<string, Value>) {
    this.#given = given;
  }

  resolve(name: string): Value | undefined {
    return this.#assigned.has(name) ? this.#assigned.get(name) : this.#given.get(name);
  }

  assign(name: string, value: Value): void {
    this.#assigned.set(name, value);
  }

  /** A context that also has the variables of a scope. */
  with(local: Iterable<[string, Value]>): Context {
    return new Context(new Map([...this.#given, ...this.#assigned, ...local]));
  }
}

export class State {
  readonly budget: Budget;
  output = new Output();
  /** Whether {% autoescape %} is on at the current statement. */
  isEscaping = false;
  /** The line of the current statement, for errors. */
  line = 1;
  /** Texts that macros and set blocks made, with the spans in them; the spans are added to the output when such a text is printed. */
  readonly #marked = new Map<string, { spans: readonly Span[]; isPlaced: boolean }>();

  constructor(budget: Budget) {
    this.budget = budget;
  }

  /** Returns what `run` writes, without writing it. */
  capture(run: () => void): Output {
    const outer = this.output;
    const inner = new Output();
    this.output = inner;
    run();
    this.output = outer;
    return inner;
  }

  /** The text of captured output, as a value. */
  textOf(output: Output): string {
    const text = output.toString();
    if (output.spans.length > 0) this.#marked.set(text, { spans: output.spans, isPlaced: false });
    return text;
  }

  write(text: string): void {
    this.budget.text(text.length);
    const marked = this.#marked.size > 0 ? this.#marked.get(text) : undefined;
    if (marked) {
      this.output.mark(marked.spans);
      marked.isPlaced = true;
    }
    this.output.write(text);
  }

  /** Whether all marked texts reached the output unchanged. */
  get isAllPlaced(): boolean {
    return [...this.#marked.values()].every(({ isPlaced }) => isPlaced);
  }
}

/** The variables of one call of a function: the template, a macro, a block, or a recursive loop. */
export class Frame {
  readonly state: State;
  readonly context: Context;
  readonly parent: Frame | null;
  readonly slots: (Value | undefined)[];

  constructor(state: State, context: Context, parent: Frame | null, size: number) {
    this.state = state;
    this.context = context;
    this.parent = parent;
    this.slots = new Array(size).fill(undefined);
  }
}
