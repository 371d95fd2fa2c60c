// Decides which variable a name means. Like jinja2, it does so once for a whole scope, before anything runs: a name that is assigned
// anywhere in a scope is a variable of that scope from its beginning on, and of the scopes within it.
import type { Expression, Statement, Target } from './nodes.ts';
import { visitExpression, visitTarget } from './walk.ts';

/** A variable. Within one function those of the same name and level are one. */
export interface Ref {
  name: string;
  level: number;
}

/** The first value of a variable in its scope. */
export type Load =
  | { from: 'parameter' }
  /** The value of the context. */
  | { from: 'context' }
  /** The value of a variable of an outer scope. */
  | { from: 'outer'; ref: Ref }
  | { from: 'nothing' };

export class Symbols {
  readonly level: number;
  readonly #parent: Symbols | null;
  /** For a branch of an if: the scope that it is a part of. */
  readonly #base: Symbols | null;
  readonly #refs = new Map<string, Ref>();
  readonly #loads = new Map<string, Load>();
  readonly #stores = new Set<string>();

  constructor(parent: Symbols | null, level = parent ? parent.level + 1 : 0, base: Symbols | null = null) {
    this.#parent = parent;
    this.level = level;
    this.#base = base;
  }

  /** The variables of this scope and their first values. */
  get loads(): [Ref, Load][] {
    return [...this.#loads].map(([name, load]) => [this.#refs.get(name)!, load]);
  }

  find(name: string): Ref | null {
    return this.#own(name) ?? this.#parent?.find(name) ?? null;
  }

  #own(name: string): Ref | undefined {
    return this.#refs.get(name) ?? (this.#base ? this.#base.#own(name) : undefined);
  }

  #isStored(name: string): boolean {
    if (this.#stores.has(name) || !this.#base) return this.#stores.has(name);
    return this.#base.#isStored(name);
  }

  /** The names that are assigned in this scope or an outer one. */
  stored(): Map<string, Ref> {
    const stored = this.#parent?.stored() ?? new Map<string, Ref>();
    for (const name of this.#stores) stored.set(name, this.find(name)!);
    return stored;
  }

  declare(name: string): void {
    this.#stores.add(name);
    this.#define(name, { from: 'parameter' });
  }

  load(name: string): void {
    if (!this.find(name)) this.#define(name, { from: 'context' });
  }

  store(name: string): void {
    this.#stores.add(name);
    if (this.#own(name)) return;
    const ref = this.#parent?.find(name);
    this.#define(name, ref ? { from: 'outer', ref } : { from: 'nothing' });
  }

  #define(name: string, load: Load): void {
    this.#refs.set(name, { name, level: this.level });
    this.#loads.set(name, load);
  }

  expression(one: Expression | null): void {
    visitExpression(one, (name) => this.load(name));
  }

  target(one: Target): void {
    visitTarget(one, { load: () => {}, store: (name) => this.store(name) }, (object) => this.load(object));
  }

  parameters(one: Target): void {
    visitTarget(one, { load: () => {}, store: (name) => this.declare(name) });
  }

  /** Visits the statements of this scope; of statements that open scopes only the parts outside these. */
  statements(all: readonly Statement[]): void {
    for (const one of all) this.#statement(one);
  }

  #statement(one: Statement): void {
    switch (one.kind) {
      case 'output':
        for (const part of one.parts) if (part.kind !== 'text') this.expression(part);
        break;
      case 'for':
        this.expression(one.iterable);
        break;
      case 'if':
        this.#if(one);
        break;
      case 'set':
        this.expression(one.value);
        this.target(one.target);
        break;
      case 'set block':
        this.target(one.target);
        break;
      case 'macro':
        this.store(one.name);
        break;
      case 'call block':
        this.expression(one.call);
        break;
      case 'filter block':
        this.expression(one.filter);
        break;
      case 'with':
        for (const value of one.values) this.expression(value);
        break;
      case 'other template':
        for (const name of one.stores) this.store(name);
    }
  }

  #if({ test, body, others, otherwise }: Statement & { kind: 'if' }): void {
    this.expression(test);
    const branch = (statements: readonly Statement[], condition: Expression | null = null) => {
      const inner = this.#branch();
      inner.expression(condition);
      inner.statements(statements);
      return inner;
    };
    // All of elif is one branch; each further test and body is a branch within it.
    const rest = this.#branch();
    for (const [condition, statements] of others) {
      rest.#if({ kind: 'if', test: condition, body: statements, others: [], otherwise: [], line: 0 });
    }
    this.#merge([branch(body), rest, branch(otherwise)]);
  }

  #branch(): Symbols {
    return new Symbols(this.#parent, this.level, this);
  }

  /** A variable that only some branches assign keeps its outer value in the others. */
  #merge(branches: readonly Symbols[]): void {
    const counts = new Map<string, number>();
    for (const branch of branches) {
      for (const name of branch.#stores) if (!this.#isStored(name)) counts.set(name, (counts.get(name) ?? 0) + 1);
    }
    for (const branch of branches) {
      for (const [name, ref] of branch.#refs) this.#refs.set(name, ref);
      for (const [name, load] of branch.#loads) this.#loads.set(name, load);
      for (const name of branch.#stores) this.#stores.add(name);
    }
    for (const [name, count] of counts) {
      if (count === branches.length) continue;
      const ref = this.#parent?.find(name);
      this.#loads.set(name, ref ? { from: 'outer', ref } : { from: 'context' });
    }
  }
}
