// Compiles `for`, with its else, its filter, and loops that call themselves.

import { TemplateSyntaxError } from './errors.ts';
import { Frame } from './frame.ts';
import { Loop } from './loop.ts';
import type * as nodes from './nodes.ts';
import { enter, FunctionScope, isEscaping, leave, type Place } from './scope.ts';
import { BREAK, type Compilation, compileTarget, evaluation, NEXT, type Run, type Signal } from './statement.ts';
import { Symbols } from './symbols.ts';
import { isTrue, iterate, Markup, Once, type Value } from './values.ts';
import { findAll, undeclared, visitNames } from './walk.ts';

type For = nodes.Statement & { kind: 'for' };

/** Runs a loop over an iterable. @param depth number of calls of the same loop around it */
type Iteration = (frame: Frame, iterable: Value, depth: number, recurse: Loop['recurse']) => Signal;

export function compileFor(node: For, place: Place, all: Compilation): Run {
  checkLoopName(node);
  const iterable = evaluation(node.iterable, place);
  const select = node.test ? selection(node, place) : null;
  const level = place.symbols.level + 1;
  const scope = node.isRecursive ? new FunctionScope(place.scope, level) : place.scope;
  const iteration = compileIteration(node, { ...place, scope }, all);
  const selected = (frame: Frame, value: Value) => (select ? select(frame, value) : value);
  if (!node.isRecursive) {
    return (frame) => iteration(frame, selected(frame, iterable(frame)), 0, null);
  }
  return (frame) => {
    const { state } = frame;
    const rendered = (value: Value, depth: number): string => {
      const own = new Frame(state, frame.context, frame, scope.size);
      return state.textOf(state.capture(() => iteration(own, selected(frame, value), depth, recurse)));
    };
    const recurse = (value: Value, depth: number): Value => {
      const text = rendered(value, depth);
      return isEscaping(place.escaping, state) ? new Markup(text) : text;
    };
    state.write(rendered(iterable(frame), 0));
    return NEXT;
  };
}

function checkLoopName(node: For): void {
  visitNames(
    [node],
    {
      load: () => {},
      store: (name) => {
        if (name === 'loop') throw new TemplateSyntaxError("can't assign to 'loop' in a loop", node.line);
      },
      parameter: () => {},
    },
    true,
  );
}

/** Yields the items for which the condition of the loop is true, one at a time. */
function selection(node: For, place: Place): (frame: Frame, value: Value) => Value {
  const symbols = new Symbols(place.symbols);
  symbols.parameters(node.target);
  symbols.expression(node.test);
  const { escaping } = place;
  const scope = new FunctionScope(place.scope, symbols.level);
  const within: Place = { symbols, scope, isTop: false, isSoft: false, escaping };
  const start = enter(within);
  const assign = compileTarget(node.target, within);
  const test = evaluation(node.test!, within);
  function* items(outer: Frame, iterator: Iterator<Value>): Generator<Value> {
    const own = new Frame(outer.state, outer.context, outer, scope.size);
    start(own);
    for (let next = iterator.next(); !next.done; next = iterator.next()) {
      assign(own, next.value);
      if (isTrue(test(own))) yield next.value;
    }
  }
  return (frame, value) => new Once(items(frame, iterate(frame.state.budget, value)));
}

function compileIteration(node: For, { symbols: outer, scope, escaping }: Place, all: Compilation): Iteration {
  const hasLoop =
    node.isRecursive ||
    undeclared(node.body, ['loop']).size > 0 ||
    findAll([node], 'block').some(({ isScoped }) => isScoped);
  const symbols = new Symbols(outer);
  const within: Place = { symbols, scope, isTop: false, isSoft: false, escaping };
  if (hasLoop) symbols.declare('loop');
  symbols.parameters(node.target);
  symbols.statements(node.body);
  const assign = compileTarget(node.target, within);
  const start = enter(within);
  scope.loops += 1;
  const body = all.body(node.body, within);
  scope.loops -= 1;
  const end = leave(within);
  const setLoop = hasLoop ? scope.write(symbols.find('loop')!) : null;
  const otherwise = node.otherwise.length > 0 ? compileElse(node, { symbols: outer, scope, escaping }, all) : null;

  return (frame, iterable, depth, recurse) => {
    const { budget } = frame.state;
    const next = setLoop
      ? withLoop(new Loop(budget, iterable, recurse, depth), (loop) => setLoop(frame, loop))
      : items(iterate(budget, iterable));
    let isElse = true;
    for (let item = next(); item !== undefined; item = next()) {
      budget.spend(2);
      assign(frame, item);
      start(frame);
      const signal = body(frame);
      if (signal === BREAK) break;
      // Like in jinja2, an item that ends in `continue` does not count.
      if (signal === NEXT) isElse = false;
    }
    end(frame);
    return otherwise && isElse ? otherwise(frame) : NEXT;
  };
}

function items(iterator: Iterator<Value>): () => Value | undefined {
  return () => {
    const next = iterator.next();
    return next.done ? undefined : next.value;
  };
}

function withLoop(loop: Loop, set: (loop: Value) => void): () => Value | undefined {
  set(loop);
  return () => loop.next();
}

function compileElse(
  node: For,
  { symbols: outer, scope, escaping }: Pick<Place, 'symbols' | 'scope' | 'escaping'>,
  all: Compilation,
): Run {
  const symbols = new Symbols(outer);
  symbols.statements(node.otherwise);
  const within: Place = { symbols, scope, isTop: false, isSoft: false, escaping };
  const start = enter(within);
  // A `break` in there belongs to the loop around.
  const body = all.body(node.otherwise, within);
  const end = leave(within);
  return (frame) => {
    start(frame);
    const signal = body(frame);
    end(frame);
    return signal;
  };
}
