// What statements are compiled to, and helpers that they share.
import { compileExpression, type Evaluate } from './compile_expression.ts';
import { TemplateError } from './errors.ts';
import type { Frame } from './frame.ts';
import { Namespace } from './globals.ts';
import type * as nodes from './nodes.ts';
import { unpack } from './operators.ts';
import type { Place } from './scope.ts';
import { Symbols } from './symbols.ts';
import type { Value } from './values.ts';

/** How a statement ended. A loop around it handles all but NEXT. */
export type Signal = typeof NEXT | typeof BREAK | typeof CONTINUE;
export const NEXT = 0;
export const BREAK = 1;
export const CONTINUE = 2;

export type Run = (frame: Frame) => Signal;
export type Assign = (frame: Frame, value: Value) => void;

/** Runs a block of the template by its name. Filled once all blocks are compiled. */
export type Blocks = Map<string, (frame: Frame, isScoped: ReadonlyMap<string, Value> | null) => void>;

/** What all parts of a template share at compile time. */
export interface Compilation {
  blocks: Blocks;
  body(statements: readonly nodes.Statement[], place: Place): Run;
}

/** Compiles an expression that charges its parts to the budget. */
export function evaluation(node: nodes.Expression, place: Place): Evaluate {
  const before = place.scope.nodes;
  const evaluate = compileExpression(node, place);
  return paid(evaluate, place.scope.nodes - before, node.line);
}

export function paid(evaluate: Evaluate, cost: number, line: number): Evaluate {
  return (frame) => {
    frame.state.line = line;
    frame.state.budget.spend(cost);
    return evaluate(frame);
  };
}

/** A scope within another. */
export function inner(place: Place): Place {
  return { ...place, symbols: new Symbols(place.symbols), isTop: false, isSoft: false };
}

export function compileTarget(target: nodes.Target, place: Place): Assign {
  if (target.kind === 'tuple') {
    const items = target.items.map((item) => compileTarget(item, place));
    return (frame, value) => {
      const values = unpack(frame.state.budget, value, items.length);
      items.forEach((assign, i) => {
        assign(frame, values[i]);
      });
    };
  }
  if (target.kind === 'field') {
    const read = place.scope.read(place.symbols.find(target.object)!);
    return (frame, value) => {
      const object = read(frame);
      if (!(object instanceof Namespace)) throw new TemplateError('cannot assign attribute on non-namespace object');
      object.set(target.name, value);
    };
  }
  const write = place.scope.write(place.symbols.find(target.name)!);
  if (!place.isTop) return write;
  return (frame, value) => {
    write(frame, value);
    frame.context.assign(target.name, value);
  };
}
