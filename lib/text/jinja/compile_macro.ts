// Compiles macros, call blocks and {% generation %}, whose bodies are functions.

import { compileCall, type Evaluate } from './compile_expression.ts';
import { TemplateSyntaxError } from './errors.ts';
import { Frame } from './frame.ts';
import { Macro, type MacroForm } from './macro.ts';
import type * as nodes from './nodes.ts';
import type { Place } from './scope.ts';
import { enter, FunctionScope } from './scope.ts';
import { type Compilation, evaluation, type Run } from './statement.ts';
import { Symbols } from './symbols.ts';
import { str } from './to_text.ts';
import { Markup, textOrFail, Undefined, type Value } from './values.ts';
import { undeclared } from './walk.ts';

/** Returns what a body writes, as a value. */
export function captureFrom(body: Run): (frame: Frame) => string {
  return (frame) => frame.state.textOf(frame.state.capture(() => body(frame)));
}

interface Definition extends nodes.Signature {
  name?: string;
  body: nodes.Statement[];
  line: number;
}

/** Makes the macro, with the variables that it sees where it is defined. */
export function defineMacro(node: Definition, place: Place, all: Compilation): (frame: Frame) => Macro {
  const special = undeclared(node.body, ['caller', 'kwargs', 'varargs']);
  const firstDefault = node.params.length - node.defaults.length;
  if (special.has('caller') && node.params.includes('caller') && node.params.indexOf('caller') < firstDefault) {
    throw new TemplateSyntaxError("the argument 'caller' must be omitted or be given a default", node.line);
  }
  const form: MacroForm = {
    name: node.name ?? null,
    params: node.params,
    takesCaller: special.has('caller'),
    takesNamed: special.has('kwargs') && !node.params.includes('kwargs'),
    takesMore: special.has('varargs') && !node.params.includes('varargs'),
  };
  const symbols = new Symbols(place.symbols);
  const scope = new FunctionScope(place.scope, symbols.level);
  const within: Place = { symbols, scope, isTop: false, isSoft: false, escaping: place.escaping };
  const names = [...node.params];
  if (form.takesCaller && !names.includes('caller')) names.push('caller');
  if (form.takesNamed) names.push('kwargs');
  if (form.takesMore) names.push('varargs');
  for (const name of names) symbols.declare(name);
  for (const value of node.defaults) symbols.expression(value);
  symbols.statements(node.body);

  const start = enter(within);
  const writes = names.map((name) => [name, scope.write(symbols.find(name)!)] as const);
  const defaults = node.params.map((name, i): [string, Evaluate] => {
    const value = node.defaults[i - firstDefault];
    if (value) return [name, evaluation(value, within)];
    const nothing = new Undefined(`parameter '${name}' was not provided`);
    return [name, () => nothing];
  });
  const body = captureFrom(all.body(node.body, within));
  return (frame) =>
    new Macro(form, (given): Value => {
      const { isEscaping } = frame.state;
      const own = new Frame(frame.state, frame.context, frame, scope.size);
      for (const [name, write] of writes) write(own, given.get(name));
      start(own);
      for (const [i, [name, value]] of defaults.entries())
        if (given.get(name) === undefined) writes[i][1](own, value(own));
      const text = body(own);
      return isEscaping ? new Markup(text) : text;
    });
}

export function callBlock(node: nodes.Statement & { kind: 'call block' }, place: Place, all: Compilation) {
  const caller = defineMacro({ ...node, name: undefined }, place, all);
  const call = compileCall(node.call, place, caller);
  return (frame: Frame) => {
    frame.state.line = node.line;
    frame.state.write(textOrFail(call(frame), 'a call block'));
  };
}

const NOTHING_GIVEN = { positional: [], named: new Map<string, Value>() };

export function generation(node: nodes.Statement & { kind: 'generation' }, place: Place, all: Compilation) {
  const define = defineMacro({ params: [], defaults: [], body: node.body, line: node.line }, place, all);
  return (frame: Frame) => {
    const { state } = frame;
    const text = str(state.budget, define(frame).call(state.budget, NOTHING_GIVEN));
    const begin = state.output.length;
    state.write(text);
    state.output.spans.push([begin, state.output.length]);
  };
}
