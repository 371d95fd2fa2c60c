// Compiles statements to functions of the frame.

import { compileFilter, type Evaluate } from './compile_expression.ts';
import { compileFor } from './compile_loop.ts';
import { callBlock, captureFrom, defineMacro, generation } from './compile_macro.ts';
import { isConstant } from './constant.ts';
import { TemplateError, TemplateSyntaxError } from './errors.ts';
import type { Frame } from './frame.ts';
import type * as nodes from './nodes.ts';
import { enter, isEscaping, leave, type Place, type StaticEscaping } from './scope.ts';
import {
  type Blocks,
  BREAK,
  CONTINUE,
  type Compilation,
  compileTarget,
  evaluation,
  inner,
  NEXT,
  paid,
  type Run,
} from './statement.ts';
import { escaped, str } from './to_text.ts';
import { isTrue, Markup, textOrFail, type Value } from './values.ts';

/** Compiles the statements of a template or of one of its blocks. */
export function compileStatements(statements: readonly nodes.Statement[], place: Place, blocks: Blocks): Run {
  const all: Compilation = { blocks, body: (statements, place) => compileBody(statements, place, all) };
  return all.body(statements, place);
}

function compileBody(statements: readonly nodes.Statement[], place: Place, all: Compilation): Run {
  const runs = statements.map((one) => compileStatement(one, place, all));
  if (runs.length === 1) return runs[0];
  return (frame) => {
    for (const run of runs) {
      const signal = run(frame);
      if (signal !== NEXT) return signal;
    }
    return NEXT;
  };
}

function compileStatement(node: nodes.Statement, place: Place, all: Compilation): Run {
  const { line } = node;
  switch (node.kind) {
    case 'output':
      return output(node, place);
    case 'for':
      return compileFor(node, place, all);
    case 'if':
      return condition(node, place, all);
    case 'set': {
      const value = evaluation(node.value, place);
      const assign = compileTarget(node.target, place);
      return done((frame) => assign(frame, value(frame)));
    }
    case 'set block':
      return setBlock(node, place, all);
    case 'filter block':
      return filterBlock(node, place, all);
    case 'macro': {
      const macro = defineMacro(node, place, all);
      const assign = compileTarget({ kind: 'name', name: node.name, line }, place);
      return done((frame) => assign(frame, macro(frame)));
    }
    case 'call block':
      return done(callBlock(node, place, all));
    case 'generation':
      return done(generation(node, place, all));
    case 'autoescape':
      return autoescape(node, place, all);
    case 'with':
      return withBlock(node, place, all);
    case 'block':
      return block(node, place, all);
    case 'other template':
      if (node.tag === 'extends' && !place.isTop) {
        throw new TemplateSyntaxError('cannot use extends from a scope that is not the top', line);
      }
      return () => {
        throw new TemplateError(`{% ${node.tag} %} needs another template, but there is only one`);
      };
    default:
      if (place.scope.loops === 0) throw new TemplateSyntaxError(`'${node.kind}' outside of a loop`, line);
      return () => (node.kind === 'break' ? BREAK : CONTINUE);
  }
}

function done(run: (frame: Frame) => void): Run {
  return (frame) => {
    run(frame);
    return NEXT;
  };
}

function output(node: nodes.Statement & { kind: 'output' }, place: Place): Run {
  const parts = node.parts.map((part): ((frame: Frame) => void) => {
    if (part.kind === 'text') {
      const { text } = part;
      return (frame) => {
        frame.state.budget.text(text.length);
        frame.state.output.write(text);
      };
    }
    const value = evaluation(part, place);
    const { escaping } = place;
    const isFixed = escaping.isVolatile && isConstant(part, escaping);
    return (frame) => {
      const { state } = frame;
      const shown = value(frame);
      const text = (isFixed ? escaping.isOn : isEscaping(escaping, state))
        ? escaped(state.budget, shown).text
        : str(state.budget, shown);
      state.write(text);
    };
  });
  return done((frame) => {
    for (const part of parts) part(frame);
  });
}

function condition(node: nodes.Statement & { kind: 'if' }, place: Place, all: Compilation): Run {
  const soft = { ...place, isSoft: true };
  const branches = [[node.test, node.body] as const, ...node.others].map(
    ([test, body]) => [evaluation(test, soft), all.body(body, soft)] as const,
  );
  const otherwise = all.body(node.otherwise, soft);
  return (frame) => {
    for (const [test, body] of branches) if (isTrue(test(frame))) return body(frame);
    return otherwise(frame);
  };
}

function setBlock(node: nodes.Statement & { kind: 'set block' }, place: Place, all: Compilation): Run {
  const within = inner(place);
  within.symbols.statements(node.body);
  within.symbols.expression(node.filter);
  const start = enter(within);
  const captured = captureFrom(all.body(node.body, within));
  const value = node.filter ? filtered(node.filter, within, asHtml(captured, within)) : captured;
  const assign = compileTarget(node.target, place);
  const end = leave(within);
  return done((frame) => {
    start(frame);
    const { state } = frame;
    const made = value(frame);
    assign(frame, state.isEscaping ? new Markup(str(state.budget, made)) : made);
    end(frame);
  });
}

function filterBlock(node: nodes.Statement & { kind: 'filter block' }, place: Place, all: Compilation): Run {
  const within = inner(place);
  within.symbols.statements(node.body);
  within.symbols.expression(node.filter);
  const start = enter(within);
  const value = filtered(node.filter, within, asHtml(captureFrom(all.body(node.body, within)), within));
  const end = leave(within);
  return done((frame) => {
    start(frame);
    frame.state.write(textOrFail(value(frame), 'a filter block'));
    end(frame);
  });
}

/** Text that a body wrote counts as HTML if it is escaped there. */
function asHtml(text: (frame: Frame) => string, { escaping }: Place): Evaluate {
  return (frame) => {
    const made = text(frame);
    return isEscaping(escaping, frame.state) ? new Markup(made) : made;
  };
}

function autoescape(node: nodes.Statement & { kind: 'autoescape' }, place: Place, all: Compilation): Run {
  const within = inner(place);
  within.symbols.expression(node.value);
  within.symbols.statements(node.body);
  const start = enter(within);
  const value = evaluation(node.value, within);
  const body = all.body(node.body, { ...within, escaping: escapingWithin(node.value, place.escaping) });
  const end = leave(within);
  return (frame) => {
    const { state } = frame;
    start(frame);
    const before = state.isEscaping;
    state.isEscaping = isTrue(value(frame));
    const signal = body(frame);
    // Like in jinja2, break and continue leave it unchanged.
    if (signal === NEXT) state.isEscaping = before;
    end(frame);
    return signal;
  };
}

function escapingWithin(node: nodes.Expression, around: StaticEscaping): StaticEscaping {
  if (node.kind === 'constant') return { ...around, isOn: Boolean(node.value) };
  if (node.kind === 'number') return { ...around, isOn: Number(node.digits) !== 0 };
  if (!isConstant(node, around)) return { ...around, isVolatile: true };
  throw new TemplateSyntaxError('autoescape takes true, false or a variable here', node.line);
}

/** The filters of a block; the first gets the block's text. */
function filtered(filter: nodes.Filter, place: Place, text: Evaluate): Evaluate {
  const before = place.scope.nodes;
  const value = filter.value ? filtered(filter.value as nodes.Filter, place, text) : text;
  const evaluate = compileFilter(filter, place, value);
  return paid(evaluate, 1 + place.scope.nodes - before, filter.line);
}

function withBlock(node: nodes.Statement & { kind: 'with' }, place: Place, all: Compilation): Run {
  const within = inner(place);
  for (const target of node.targets) within.symbols.parameters(target);
  within.symbols.statements(node.body);
  const start = enter(within);
  const assigned = node.targets.map(
    (target, i) => [compileTarget(target, within), evaluation(node.values[i], place)] as const,
  );
  const body = all.body(node.body, within);
  const end = leave(within);
  return (frame) => {
    start(frame);
    for (const [assign, value] of assigned) assign(frame, value(frame));
    const signal = body(frame);
    end(frame);
    return signal;
  };
}

function block(node: nodes.Statement & { kind: 'block' }, place: Place, { blocks }: Compilation): Run {
  const reads = [...place.symbols.stored()].map(([name, ref]) => [name, place.scope.read(ref)] as const);
  return done((frame) => {
    if (node.isRequired) throw new TemplateError(`Required block '${node.name}' not found`);
    let local: Map<string, Value> | null = null;
    if (node.isScoped) {
      local = new Map();
      for (const [name, read] of reads) {
        const value = read(frame);
        if (value !== undefined) local.set(name, value);
      }
    }
    blocks.get(node.name)!(frame, local);
  });
}
