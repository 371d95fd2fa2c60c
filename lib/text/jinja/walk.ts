// Visits the names in the parts of a template.
import type { Arguments, Expression, Statement, Target } from './nodes.ts';

export interface NameVisitor {
  load(name: string): void;
  store(name: string): void;
  /** Parameters of macros and `with`; if absent, `store` is called. */
  parameter?(name: string): void;
}

export function visitExpression(one: Expression | null, load: (name: string) => void): void {
  if (!one) return;
  if (one.kind === 'name') load(one.name);
  else for (const part of partsOf(one)) visitExpression(part, load);
}

function partsOf(one: Expression): readonly (Expression | null)[] {
  switch (one.kind) {
    case 'tuple':
    case 'list':
      return one.items;
    case 'dict':
      return one.entries.flat();
    case 'attribute':
      return [one.object];
    case 'item':
      return [one.object, one.key];
    case 'slice':
      return [one.object, ...one.bounds];
    case 'unary':
      return [one.operand];
    case 'binary':
      return [one.left, one.right];
    case 'concat':
      return one.parts;
    case 'compare':
      return [one.first, ...one.rest.map(([, operand]) => operand)];
    case 'condition':
      return [one.test, one.value, one.otherwise];
    case 'call':
      return [one.callee, ...argumentsOf(one.args)];
    case 'filter':
    case 'test':
      return [one.value, ...argumentsOf(one.args)];
    default:
      return [];
  }
}

function argumentsOf({ positional, named, list, dict }: Arguments): Expression[] {
  return [...positional, ...named.map(([, value]) => value), list, dict].filter((one) => one !== null);
}

export function visitTarget(target: Target, visitor: NameVisitor, field = (_: string) => {}): void {
  if (target.kind === 'name') visitor.store(target.name);
  else if (target.kind === 'field') field(target.object);
  else for (const item of target.items) visitTarget(item, visitor, field);
}

/** Visits every name of statements in the order of jinja2, with the scopes within; blocks only if `intoBlocks`. */
export function visitNames(statements: readonly Statement[], visitor: NameVisitor, intoBlocks = false): void {
  const expression = (one: Expression | null) => visitExpression(one, visitor.load);
  const parameter = visitor.parameter ?? visitor.store;
  const body = (all: readonly Statement[]) => visitNames(all, visitor, intoBlocks);
  const signature = ({ params, defaults }: { params: string[]; defaults: Expression[] }) => {
    for (const name of params) parameter(name);
    defaults.forEach(expression);
  };
  for (const one of statements) {
    switch (one.kind) {
      case 'output':
        for (const part of one.parts) if (part.kind !== 'text') expression(part);
        break;
      case 'for':
        visitTarget(one.target, visitor);
        expression(one.iterable);
        body(one.body);
        body(one.otherwise);
        expression(one.test);
        break;
      case 'if':
        expression(one.test);
        body(one.body);
        for (const [test, inner] of one.others) {
          expression(test);
          body(inner);
        }
        body(one.otherwise);
        break;
      case 'set':
        visitTarget(one.target, visitor);
        expression(one.value);
        break;
      case 'set block':
        visitTarget(one.target, visitor);
        expression(one.filter);
        body(one.body);
        break;
      case 'macro':
        signature(one);
        body(one.body);
        break;
      case 'call block':
        expression(one.call);
        signature(one);
        body(one.body);
        break;
      case 'filter block':
        body(one.body);
        expression(one.filter);
        break;
      case 'with':
        for (const target of one.targets) visitTarget(target, { ...visitor, store: parameter });
        one.values.forEach(expression);
        body(one.body);
        break;
      case 'generation':
        body(one.body);
        break;
      case 'autoescape':
        expression(one.value);
        body(one.body);
        break;
      case 'block':
        if (intoBlocks) body(one.body);
    }
  }
}

/** The names that are read before the statements assign them. */
export function undeclared(statements: readonly Statement[], names: readonly string[]): Set<string> {
  const wanted = new Set(names);
  const found = new Set<string>();
  visitNames(statements, {
    load: (name) => {
      if (wanted.has(name)) found.add(name);
    },
    store: (name) => {
      if (found.size < names.length) wanted.delete(name);
    },
  });
  return found;
}

/** Finds all statements of a kind, at any depth. */
export function findAll<K extends Statement['kind']>(
  statements: readonly Statement[],
  kind: K,
): (Statement & { kind: K })[] {
  return statements.flatMap((one) => {
    const inner: Statement[] = [];
    if ('body' in one) inner.push(...one.body);
    if (one.kind === 'if') inner.push(...one.others.flatMap(([, body]) => body));
    if ('otherwise' in one) inner.push(...one.otherwise);
    const found = findAll(inner, kind);
    return one.kind === kind ? [one as Statement & { kind: K }, ...found] : found;
  });
}
