// Compiles expressions to functions of the frame.
import { Float } from '../json.ts';
import { getAttribute, getItem, isSliceable, slice } from './attributes.ts';
import { isConstant } from './constant.ts';
import { Dict } from './dict.ts';
import { TemplateError, TemplateSyntaxError } from './errors.ts';
import { FILTERS, TESTS } from './filters.ts';
import type { Frame } from './frame.ts';
import type * as nodes from './nodes.ts';
import { parseInteger } from './numbers.ts';
import { compare, contains, equals, operate, unary } from './operators.ts';
import type { Place } from './scope.ts';
import { NO_ARGUMENTS } from './signature.ts';
import { softText, str } from './to_text.ts';
import {
  type Arguments,
  isString,
  isTrue,
  listOf,
  Obj,
  Tuple,
  textIn,
  typeName,
  Undefined,
  type Value,
} from './values.ts';

export type Evaluate = (frame: Frame) => Value;

export function compileExpression(node: nodes.Expression, place: Place): Evaluate {
  place.scope.nodes += 1;
  const compiled = (one: nodes.Expression) => compileExpression(one, place);
  switch (node.kind) {
    case 'constant': {
      const { value } = node;
      return () => value;
    }
    case 'number':
      return number(node.digits, node.isFloat, node.line);
    case 'name':
      return name(node.name, place);
    case 'tuple': {
      const items = node.items.map(compiled);
      return (frame) => new Tuple(evaluated(items, frame));
    }
    case 'list': {
      const items = node.items.map(compiled);
      return (frame) => evaluated(items, frame);
    }
    case 'dict':
      return dict(node.entries.map(([key, value]) => [compiled(key), compiled(value)] as const));
    case 'attribute': {
      const object = compiled(node.object);
      const { name: field } = node;
      return (frame) => getAttribute(frame.state.budget, object(frame), field);
    }
    case 'item': {
      const [object, key] = [compiled(node.object), compiled(node.key)];
      return (frame) => getItem(frame.state.budget, object(frame), key(frame));
    }
    case 'slice': {
      const object = compiled(node.object);
      const bounds = [0, 1, 2].map((i) => (node.bounds[i] ? compiled(node.bounds[i]) : () => null));
      const isFolded = isConstant(node, place.escaping);
      return (frame) => {
        const sliced = object(frame);
        // A slice of something that cannot be sliced is undefined if jinja2 computes it at compile time, and an error at run time.
        if (isFolded && !isSliceable(sliced)) return new Undefined(`${typeName(sliced)} object has no slices`);
        return slice(
          frame.state.budget,
          sliced,
          bounds.map((bound) => bound(frame)),
        );
      };
    }
    case 'unary': {
      const operand = compiled(node.operand);
      const { operator } = node;
      if (operator === 'not') return (frame) => !isTrue(operand(frame));
      return (frame) => unary(operator, operand(frame));
    }
    case 'binary':
      return binary(node.operator, compiled(node.left), compiled(node.right));
    case 'concat': {
      const parts = node.parts.map(compiled);
      const isHtml = place.escaping.isOn && !place.escaping.isVolatile;
      // jinja2 computes constants at compile time, and makes plain texts of them.
      const toText = isHtml && !isConstant(node, place.escaping) ? softText : str;
      return (frame) => {
        const { budget } = frame.state;
        const texts = parts.map((part) => toText(budget, part(frame)));
        return texts.reduce<Value>((all, text) => operate(budget, '+', all, text), '');
      };
    }
    case 'compare':
      return comparison(
        compiled(node.first),
        node.rest.map(([operator, operand]) => [operator, compiled(operand)]),
      );
    case 'condition':
      return condition(node, { ...place, isSoft: true });
    case 'call':
      return compileCall(node, place);
    case 'filter': {
      const value = compiled(node.value!);
      return compileFilter(node, place, value);
    }
    case 'test':
      return test(node, place);
  }
}

function evaluated(items: readonly Evaluate[], frame: Frame): Value[] {
  frame.state.budget.container(items.length);
  return items.map((item) => item(frame));
}

function number(digits: string, isFloat: boolean, line: number): Evaluate {
  const value = isFloat ? Number(digits) : parseInteger(digits, 0);
  if (value === null) throw new TemplateSyntaxError(`an int of more than 4300 digits`, line);
  const result = isFloat && Number.isInteger(value) ? new Float(Number(value)) : value;
  return () => result;
}

function name(text: string, { symbols, scope }: Place): Evaluate {
  const read = scope.read(symbols.find(text)!);
  const nothing = Undefined.named(text);
  return (frame) => {
    const value = read(frame);
    return value === undefined ? nothing : value;
  };
}

function dict(entries: readonly (readonly [Evaluate, Evaluate])[]): Evaluate {
  return (frame) => {
    frame.state.budget.container(entries.length * 4);
    const made = new Dict();
    for (const [key, value] of entries) made.set(key(frame), value(frame));
    return made;
  };
}

function binary(operator: nodes.BinaryOperator, left: Evaluate, right: Evaluate): Evaluate {
  if (operator === 'and') {
    return (frame) => {
      const value = left(frame);
      return isTrue(value) ? right(frame) : value;
    };
  }
  if (operator === 'or') {
    return (frame) => {
      const value = left(frame);
      return isTrue(value) ? value : right(frame);
    };
  }
  return (frame) => operate(frame.state.budget, operator, left(frame), right(frame));
}

function comparison(first: Evaluate, rest: readonly [nodes.Comparison, Evaluate][]): Evaluate {
  return (frame) => {
    let left = first(frame);
    for (const [operator, operand] of rest) {
      const right = operand(frame);
      if (!holds(frame, operator, left, right)) return false;
      left = right;
    }
    return true;
  };
}

function holds({ state: { budget } }: Frame, operator: nodes.Comparison, a: Value, b: Value): boolean {
  if (operator === '==') return equals(budget, a, b);
  if (operator === '!=') return !equals(budget, a, b);
  if (operator === 'in') return contains(budget, b, a);
  if (operator === 'not in') return !contains(budget, b, a);
  const order = compare(budget, operator, a, b);
  if (operator === '<') return order < 0;
  if (operator === '<=') return order <= 0;
  return operator === '>' ? order > 0 : order >= 0;
}

function condition(node: nodes.Expression & { kind: 'condition' }, place: Place): Evaluate {
  const test = compileExpression(node.test, place);
  const value = compileExpression(node.value, place);
  const nothing = new Undefined(
    `the inline if-expression on line ${node.line} evaluated to false and no else section was defined.`,
  );
  const otherwise = node.otherwise ? compileExpression(node.otherwise, place) : () => nothing;
  return (frame) => (isTrue(test(frame)) ? value(frame) : otherwise(frame));
}

function compileArguments(
  { positional, named, list, dict: map }: nodes.Arguments,
  place: Place,
): (frame: Frame) => Arguments {
  const places = positional.map((one) => compileExpression(one, place));
  const names = named.map(([key, one]) => [key, compileExpression(one, place)] as const);
  if (places.length + names.length === 0 && !list && !map) return () => NO_ARGUMENTS;
  const more = list && compileExpression(list, place);
  const moreNamed = map && compileExpression(map, place);
  return (frame) => {
    const { budget } = frame.state;
    const args = places.map((one) => one(frame));
    const byName = new Map(names.map(([key, one]) => [key, one(frame)]));
    if (more) args.push(...listOf(budget, more(frame)));
    if (moreNamed) addNamed(byName, moreNamed(frame));
    return { positional: args, named: byName };
  };
}

function addNamed(named: Map<string, Value>, map: Value): void {
  if (!(map instanceof Dict)) throw new TemplateError(`argument after ** must be a mapping, not ${typeName(map)}`);
  for (const [key, value] of map.entries()) {
    if (!isString(key)) throw new TemplateError('keywords must be strings');
    if (named.has(textIn(key))) throw new TemplateError(`got multiple values for keyword argument '${textIn(key)}'`);
    named.set(textIn(key), value);
  }
}

/** @param caller the body of a call block, passed as `caller` */
export function compileCall(node: nodes.Call, place: Place, caller?: Evaluate): Evaluate {
  const callee = compileExpression(node.callee, place);
  const args = compileArguments(node.args, place);
  return (frame) => {
    const { budget } = frame.state;
    const called = callee(frame);
    let given = args(frame);
    if (caller) given = { ...given, named: new Map([...given.named, ['caller', caller(frame)]]) };
    budget.spend(8);
    if (!(called instanceof Obj)) throw new TemplateError(`'${typeName(called)}' object is not callable`);
    budget.enter();
    const result = called.call(budget, given);
    budget.leave();
    return result;
  };
}

export function compileFilter(node: nodes.Filter, place: Place, value: Evaluate): Evaluate {
  const filter = FILTERS.get(node.name);
  if (!filter && !place.isSoft) throw new TemplateSyntaxError(`no filter named '${node.name}'`, node.line);
  const args = compileArguments(node.args, place);
  const escaping = isConstant(node, place.escaping) ? { isEscaping: place.escaping.isOn } : null;
  return (frame) => {
    if (!filter) throw new TemplateError(`no filter named '${node.name}'`);
    const { budget } = frame.state;
    budget.spend(8);
    return filter(budget, value(frame), args(frame), escaping ?? frame.state);
  };
}

function test(node: nodes.Expression & { kind: 'test' }, place: Place): Evaluate {
  const run = TESTS.get(node.name);
  if (!run && !place.isSoft) throw new TemplateSyntaxError(`no test named '${node.name}'`, node.line);
  const value = compileExpression(node.value, place);
  const args = compileArguments(node.args, place);
  return (frame) => {
    if (!run) throw new TemplateError(`no test named '${node.name}'`);
    const { budget } = frame.state;
    budget.spend(4);
    return run(budget, value(frame), args(frame), frame.state);
  };
}
